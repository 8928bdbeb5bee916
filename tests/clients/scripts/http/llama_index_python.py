"""LlamaIndex: TEI's embeddings and rerank, Jina's and Cohere's rerank, OpenAI-like embeddings."""

import json
import os
from pathlib import Path

from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
query, documents = expected["query"], expected["documents"]


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in documents]


tei = TextEmbeddingsInference(model_name="mini", base_url=URL)
assert len(tei.get_text_embedding_batch(documents)) == len(documents)
like = OpenAILikeEmbedding(model_name="mini", api_base=f"{URL}/v1", api_key="whatever")
assert len(like.get_text_embedding_batch(documents)) == len(documents)

for reranker in (
    TextEmbeddingInference(base_url=URL, model_name="demo", top_n=2),
    JinaRerank(base_url=f"{URL}/v1", api_key="whatever", model="demo", top_n=2),
    CohereRerank(base_url=URL, api_key="whatever", model="demo", top_n=2),
):
    found = reranker.postprocess_nodes(nodes(), query_str=query)
    assert len(found) == 2, reranker
    assert found[0].score >= found[1].score
try:
    JinaRerank(base_url=f"{URL}/v1", api_key="whatever", model="nope").postprocess_nodes(nodes(), query_str=query)
except RuntimeError as error:
    assert "no model 'nope' is loaded" in str(error)
else:
    raise AssertionError("it was served")
