"""Haystack: TEI's ranker, Hugging Face's, OpenAI's and Jina's embedders, Cohere's and Jina's rankers."""

import json
import os
from pathlib import Path

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
query, documents = expected["query"], [Document(content=text) for text in expected["documents"]]
key = Secret.from_token("whatever")

ranked = HuggingFaceTEIRanker(url=URL, top_k=2, token=key).run(query=query, documents=documents)
assert len(ranked["documents"]) == 2
text_embedder = OpenAITextEmbedder(api_base_url=f"{URL}/v1", api_key=key, model="mini")
assert len(text_embedder.run("one")["embedding"]) == 8
document_embedder = OpenAIDocumentEmbedder(api_base_url=f"{URL}/v1", api_key=key, model="mini")
assert len(document_embedder.run(documents)["documents"][0].embedding) == 8
hugging_face = HuggingFaceAPITextEmbedder(api_type="text_embeddings_inference", api_params={"url": URL}, token=key)
assert len(hugging_face.run("one")["embedding"]) == 8
assert len(CohereRanker(api_base_url=URL, api_key=key, model="demo", top_k=2).run(query, documents)["documents"]) == 2
jina = JinaRanker(base_url=f"{URL}/v1/rerank", api_key=key, model="demo", top_k=2)
assert len(jina.run(query, documents)["documents"]) == 2
try:
    OpenAITextEmbedder(api_base_url=f"{URL}/v1", api_key=key, model="nope", max_retries=0).run("one")
except Exception as error:
    assert "no model 'nope' is loaded" in str(error), error
else:
    raise AssertionError("it was served")
