"""openai: embeddings and models."""

import json
import os
from pathlib import Path

import numpy as np
import openai

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="whatever", max_retries=0)
for encoding_format in ("float", "base64", None):
    more = {} if encoding_format is None else {"encoding_format": encoding_format}
    found = client.embeddings.create(model="mini", input=expected["documents"], **more)
    rows = [each.embedding for each in found.data]
    if encoding_format == "base64":
        import base64

        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    np.testing.assert_array_equal(np.float32(rows), np.float32(expected["vectors"]))
assert found.usage.total_tokens > 0
assert len(client.embeddings.create(model="mini", input="one", dimensions=4).data[0].embedding) == 4
assert {model.id for model in client.models.list()} == {"demo", "mini", "splade"}

for arguments, kind, told in (
    ({"model": "nope", "input": "a"}, openai.NotFoundError, "no model 'nope' is loaded"),
    ({"model": "mini", "input": []}, openai.BadRequestError, "input: empty"),
    ({"model": "mini", "input": [[10**9]]}, openai.BadRequestError, "outside the model's vocabulary"),
    ({"model": "mini", "input": "a", "dimensions": 10**4}, openai.BadRequestError, "dimensions: 10000 is not between"),
):
    try:
        client.embeddings.create(**arguments)
    except kind as error:
        assert told in str(error), error
    else:
        raise AssertionError(f"{arguments} was served")
