"""The Haystack integration, with the framework and a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed; `make test-clients` has it")

from haystack import Document, Pipeline

from pairwire.client import ModelNotFound
from pairwire.integrations.haystack import PairwireDocumentEmbedder, PairwireRanker, PairwireTextEmbedder
from tests.integrations.conftest import QUERY, TEXTS


def documents() -> list[Document]:
    return [Document(id=str(at), content=text, meta={"title": f"page {at}"}) for at, text in enumerate(TEXTS)]


def ran(component: Any, asynchronous: bool, **inputs: Any) -> dict[str, Any]:
    """What a component gives, either way; its connections are closed."""

    async def both_ways() -> dict[str, Any]:
        try:
            found: dict[str, Any] = await component.run_async(**inputs) if asynchronous else component.run(**inputs)
            return found
        finally:
            await component.close_async()

    return asyncio.run(both_ways())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("top_k", [None, 2])
def test_documents_come_best_first_with_their_scores(
    address: str, ranking: list[tuple[int, float]], asynchronous: bool, top_k: int | None
) -> None:
    given = documents()
    found = ran(PairwireRanker(address, top_k=3), asynchronous, query=QUERY, documents=given, top_k=top_k)["documents"]
    assert [(int(each.id), each.score) for each in found] == ranking[: top_k or 3]
    assert given == documents(), "what came in was changed"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_queries_and_documents_get_their_prompts(
    address: str, query_vector: list[float], vectors: list[list[float]], asynchronous: bool
) -> None:
    assert ran(PairwireTextEmbedder(address), asynchronous, text=QUERY) == {"embedding": query_vector}
    given = documents()
    found = ran(PairwireDocumentEmbedder(address), asynchronous, documents=given)["documents"]
    assert [each.embedding for each in found] == vectors
    assert [each.id for each in found] == [each.id for each in given]
    assert given[0].embedding is None


def test_metadata_can_be_read_too(address: str, client: Any) -> None:
    ranker = PairwireRanker(address, meta_fields_to_embed=["title"], embedding_separator=": ")
    found = ran(ranker, False, query=QUERY, documents=documents())["documents"]
    expected = client.rerank(QUERY, [f"page {at}: {text}" for at, text in enumerate(TEXTS)])
    assert [(int(each.id), each.score) for each in found] == [(each.index, each.score) for each in expected]


def test_nothing_is_nothing_and_asks_no_server() -> None:
    assert ran(PairwireRanker("127.0.0.1:1"), True, query=QUERY, documents=[]) == {"documents": []}
    assert ran(PairwireDocumentEmbedder("127.0.0.1:1"), False, documents=[]) == {"documents": []}


def test_a_pipeline_can_be_saved_and_run_again(address: str, ranking: list[tuple[int, float]]) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", PairwireDocumentEmbedder(address))
    pipeline.add_component("ranker", PairwireRanker(address, top_k=1))
    pipeline.connect("embedder.documents", "ranker.documents")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["pairwire.integrations.haystack"])
    found = again.run({"embedder": {"documents": documents()}, "ranker": {"query": QUERY}})
    (best,) = found["ranker"]["documents"]
    assert (int(best.id), best.score) == ranking[0]
    assert len(best.embedding) == 8
    for name in ("embedder", "ranker"):
        again.get_component(name).close()


def test_what_goes_wrong_is_the_clients_own_error(address: str) -> None:
    ranker = PairwireRanker(address, model="nobody")
    with pytest.raises(ModelNotFound, match="no model 'nobody' is loaded"):
        ranker.run(query=QUERY, documents=documents())
    ranker.close()
