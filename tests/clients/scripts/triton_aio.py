import asyncio

import numpy as np
import tritonclient.grpc.aio as triton
from given import EXPECTED, SERVER
from tritonclient.utils import InferenceServerException


def texts(name, values):
    tensor = triton.InferInput(name, [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode() for value in values], object))
    return tensor


async def main():
    async with triton.InferenceServerClient(SERVER) as client:
        pair = [texts("query", [EXPECTED.query]), texts("documents", EXPECTED.documents)]
        answers = await asyncio.gather(*(client.infer("demo", pair) for _ in range(30)))
        assert all(each.as_numpy("logit")[:, 0].astype(float).tolist() == EXPECTED.logits for each in answers)

        async def requests():
            for number in range(30):
                yield {"model_name": "demo", "inputs": pair[: 1 if number == 5 else 2], "request_id": str(number)}

        found = [each async for each in client.stream_infer(requests())]
        assert [result.get_response().id for result, error in found if error is None] == [
            str(number) for number in range(30) if number != 5
        ]
        assert "give query and documents" in str(found[5][1])
        try:
            await client.infer("demo", pair[:1])
        except InferenceServerException as error:
            assert "give query and documents" in error.message(), error
        else:
            raise AssertionError("nothing was refused")


asyncio.run(main())
