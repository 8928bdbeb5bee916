"""kserve: its REST client."""

import asyncio
import json
import os
from pathlib import Path

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_ready(URL)
    assert await client.is_server_live(URL)
    given = InferInput("text", [len(expected["documents"])], "BYTES", expected["documents"])
    found = await client.infer(
        URL, InferRequest(model_name="mini", infer_inputs=[given], request_id="7"), model_name="mini"
    )
    (output,) = found.outputs
    np.testing.assert_array_equal(np.float32(output.as_numpy()), np.float32(expected["vectors"]))


asyncio.run(main())
