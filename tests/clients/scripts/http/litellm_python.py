"""litellm: embeddings and rerank of four of its providers."""

import json
import os
from pathlib import Path

import litellm

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
query, documents = expected["query"], expected["documents"]

for model, base in (("openai/mini", f"{URL}/v1"), ("hosted_vllm/mini", f"{URL}/v1"), ("jina_ai/mini", f"{URL}/v1")):
    found = litellm.embedding(model=model, input=documents, api_base=base, api_key="whatever")
    assert len(found.data) == len(documents), model
found = litellm.embedding(
    model="huggingface/mini", input=documents, api_base=URL, api_key="x", input_type="feature-extraction"
)
assert len(found.data) == len(documents)
for model, base in (
    ("cohere/demo", URL),
    ("jina_ai/demo", f"{URL}/v1/rerank"),
    ("hosted_vllm/demo", URL),
    ("huggingface/demo", URL),
):
    ranked = litellm.rerank(model=model, query=query, documents=documents, top_n=2, api_base=base, api_key="whatever")
    assert ranked.results[0]["relevance_score"] >= ranked.results[1]["relevance_score"], model
try:
    litellm.embedding(model="openai/nope", input=documents, api_base=f"{URL}/v1", api_key="whatever", max_retries=0)
except litellm.NotFoundError as error:
    assert "no model 'nope' is loaded" in str(error)
else:
    raise AssertionError("it was served")
