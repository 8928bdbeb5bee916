"""LangChain: OpenAI's embeddings, Cohere's rerank, Infinity's embeddings and rerank."""

import json
import os
from pathlib import Path

from langchain_cohere import CohereRerank
from langchain_community.embeddings import InfinityEmbeddings
from langchain_core.documents import Document
from langchain_openai import OpenAIEmbeddings

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
query, documents = expected["query"], expected["documents"]

embeddings = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="whatever", model="mini", check_embedding_ctx_length=False)
assert len(embeddings.embed_documents(documents)) == len(documents)
assert len(embeddings.embed_query(query)) == 8

reranker = CohereRerank(cohere_api_key="whatever", base_url=URL, model="demo", top_n=3)
ranked = reranker.compress_documents([Document(page_content=text) for text in documents], query)
assert len(ranked) == 3

infinity = InfinityEmbeddings(model="mini", infinity_api_url=URL)
assert len(infinity.embed_documents(documents)) == len(documents)

try:
    OpenAIEmbeddings(
        base_url=f"{URL}/v1", api_key="whatever", model="nope", check_embedding_ctx_length=False, max_retries=0
    ).embed_query("a")
except Exception as error:
    assert "no model 'nope' is loaded" in str(error), error
else:
    raise AssertionError("it was served")
