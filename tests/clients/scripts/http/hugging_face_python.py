"""huggingface_hub: InferenceClient on the server's root."""

import json
import os
from pathlib import Path

import numpy as np
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())

for client in (InferenceClient(model=URL), InferenceClient(base_url=URL, api_key="whatever")):
    found = client.feature_extraction(expected["documents"])
    np.testing.assert_array_equal(np.float32(found), np.float32(expected["unit_vectors"]))
    assert np.shape(client.feature_extraction("one", truncate=True, truncation_direction="left")) == (1, 8)
    assert len(client.sentence_similarity("one", other_sentences=["two", "three"])) == 2
for arguments, told in (({"dimensions": 10**4}, "not between 1 and 8"), ({"prompt_name": "nope"}, "nope")):
    try:
        client.feature_extraction("one", **arguments)
    except HfHubHTTPError as error:
        assert told in str(error), error
    else:
        raise AssertionError("it was served")
own = InferenceClient(model=URL, provider="hf-inference")
assert own.health_check()
assert own.get_endpoint_info()["max_client_batch_size"] == 2048
