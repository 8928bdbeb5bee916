import asyncio

import grpc
import numpy as np
from given import EXPECTED, SERVER
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main():
    client = InferenceGRPCClient(SERVER)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("demo")
    for raw in (False, True):
        inputs = []
        for name, texts in (("query", [EXPECTED.query]), ("documents", EXPECTED.documents)):
            tensor = InferInput(name=name, shape=[len(texts)], datatype="BYTES")
            if raw:
                tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object))
            else:
                tensor.data = texts
            inputs.append(tensor)
        answer = await client.infer(InferRequest(model_name="demo", infer_inputs=inputs, request_id="7"))
        assert answer.id == "7"
        (logits,) = [each for each in answer.outputs if each.name == "logit"]
        assert logits.as_numpy()[:, 0].astype(float).tolist() == EXPECTED.logits
    try:
        await client.infer(InferRequest(model_name="demo", infer_inputs=inputs[:1]))
    except grpc.aio.AioRpcError as error:
        assert "give query and documents" in error.details(), error
    else:
        raise AssertionError("nothing was refused")
    await client.close()


asyncio.run(main())
