"""The LlamaIndex integration, with the framework and a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed; `make test-clients` has it")

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from pairwire.client import ModelNotFound
from pairwire.integrations.llamaindex import PairwireEmbedding, PairwireRerank
from tests.integrations.conftest import QUERY, TEXTS


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=str(at)), score=0.0) for at, text in enumerate(TEXTS)]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("top_n", [None, 2])
def test_nodes_come_best_first_with_their_scores(
    address: str, ranking: list[tuple[int, float]], asynchronous: bool, top_n: int | None
) -> None:
    reranker, given = PairwireRerank(address=address, top_n=top_n), nodes()

    async def both_ways() -> list[NodeWithScore]:
        try:
            if asynchronous:
                return await reranker.apostprocess_nodes(given, query_bundle=QueryBundle(QUERY))
            return reranker.postprocess_nodes(given, query_str=QUERY)
        finally:
            await reranker.aclose()

    found = asyncio.run(both_ways())
    assert [(int(each.node.node_id), each.score) for each in found] == ranking[:top_n]
    assert {each.score for each in given} == {0.0}, "what came in was changed"


def test_a_node_is_read_with_its_metadata(address: str, client: Any) -> None:
    node = TextNode(text="bread", metadata={"title": "the dog runs"})
    reranker = PairwireRerank(address=address)
    (found,) = reranker.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    assert "the dog runs" in text
    assert found.score == client.rerank(QUERY, [text])[0].score
    reranker.close()


def test_nothing_is_nothing_and_a_query_is_needed() -> None:
    reranker = PairwireRerank(address="127.0.0.1:1")
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="query_bundle: missing"):
        reranker.postprocess_nodes(nodes())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_queries_and_texts_get_their_prompts(
    address: str, query_vector: list[float], vectors: list[list[float]], asynchronous: bool
) -> None:
    embedding = PairwireEmbedding(address=address)

    async def both_ways() -> Any:
        try:
            if asynchronous:
                texts = await embedding.aget_text_embedding_batch(TEXTS)
                return await embedding.aget_query_embedding(QUERY), texts, await embedding.aget_text_embedding(TEXTS[0])
            texts = embedding.get_text_embedding_batch(TEXTS)
            return embedding.get_query_embedding(QUERY), texts, embedding.get_text_embedding(TEXTS[0])
        finally:
            await embedding.aclose()

    query, texts, first = asyncio.run(both_ways())
    assert (query, texts) == (query_vector, vectors)
    assert first == pytest.approx(vectors[0], rel=1e-5)  # alone it may be padded to another length


def test_an_index_works_with_both(address: str, ranking: list[tuple[int, float]]) -> None:
    embedding, reranker = PairwireEmbedding(address=address), PairwireRerank(address=address, top_n=1)
    index = VectorStoreIndex([each.node for each in nodes()], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=4).retrieve(QUERY)
    (best,) = reranker.postprocess_nodes(found, query_str=QUERY)
    assert best.node.get_content() == TEXTS[ranking[0][0]]
    embedding.close()
    reranker.close()


def test_what_goes_wrong_is_the_clients_own_error(address: str) -> None:
    reranker = PairwireRerank(address=address, model="nobody")
    with pytest.raises(ModelNotFound, match="no model 'nobody' is loaded"):
        reranker.postprocess_nodes(nodes(), query_str=QUERY)
    reranker.close()


def test_the_framework_can_write_it_down_and_read_it_again(address: str) -> None:
    reranker = PairwireRerank(address=address, top_n=2)
    assert PairwireRerank.from_dict(reranker.to_dict()).top_n == 2
    embedding = PairwireEmbedding(address=address, model="embedder")
    assert PairwireEmbedding.from_dict(embedding.to_dict()).model == "embedder"
