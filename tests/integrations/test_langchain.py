"""The LangChain integration, with the framework and a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed; `make test-clients` has it")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from pairwire.client import ClientOptions, DeadlineExceeded, ModelNotFound, RetryPolicy, Unavailable
from pairwire.integrations.langchain import PairwireEmbeddings, PairwireRerank
from tests.integrations.conftest import QUERY, TEXTS


def documents() -> list[Document]:
    return [Document(page_content=text, metadata={"page": at}, id=str(at)) for at, text in enumerate(TEXTS)]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("top_n", [None, 2])
def test_documents_come_best_first_with_their_scores(
    address: str, ranking: list[tuple[int, float]], asynchronous: bool, top_n: int | None
) -> None:
    reranker, given = PairwireRerank(address=address, top_n=top_n), documents()

    async def both_ways() -> Any:
        try:
            if asynchronous:
                return await reranker.acompress_documents(given, QUERY)
            return reranker.compress_documents(given, QUERY)
        finally:
            await reranker.aclose()

    found = asyncio.run(both_ways())
    assert [(each.metadata["page"], each.metadata["relevance_score"]) for each in found] == ranking[:top_n]
    assert [each.page_content for each in found] == [TEXTS[index] for index, _ in ranking[:top_n]]
    assert [each.id for each in found] == [str(index) for index, _ in ranking[:top_n]]
    assert given == documents(), "what came in was changed"


def test_nothing_is_nothing_and_asks_no_server() -> None:
    nowhere = "127.0.0.1:1"
    assert PairwireRerank(address=nowhere).compress_documents([], QUERY) == []
    assert asyncio.run(PairwireRerank(address=nowhere).acompress_documents([], QUERY)) == []
    assert PairwireEmbeddings(address=nowhere).embed_documents([]) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_queries_and_documents_get_their_prompts(
    address: str, query_vector: list[float], vectors: list[list[float]], asynchronous: bool
) -> None:
    embeddings = PairwireEmbeddings(address=address)

    async def both_ways() -> Any:
        try:
            if asynchronous:
                return await embeddings.aembed_query(QUERY), await embeddings.aembed_documents(TEXTS)
            return embeddings.embed_query(QUERY), embeddings.embed_documents(TEXTS)
        finally:
            await embeddings.aclose()

    assert asyncio.run(both_ways()) == (query_vector, vectors)


def test_prompts_and_dimensions_can_be_chosen(address: str, client: Any) -> None:
    embeddings = PairwireEmbeddings(
        address=address, model="embedder", query_prompt_name="passage", dimensions=4, normalize=True
    )
    expected = client.embed([QUERY], prompt_name="passage", dimensions=4, normalize=True).embeddings[0].tolist()
    assert embeddings.embed_query(QUERY) == expected
    embeddings.close()


def test_a_vector_store_and_a_chain_work_with_them(address: str, ranking: list[tuple[int, float]]) -> None:
    embeddings = PairwireEmbeddings(address=address)
    store = InMemoryVectorStore(embeddings)
    store.add_documents(documents())
    reranker = PairwireRerank(address=address, top_n=1)
    best = RunnableLambda(lambda found: reranker.compress_documents(found, QUERY))
    (found,) = (store.as_retriever(search_kwargs={"k": 4}) | best).invoke(QUERY)
    assert found.page_content == TEXTS[ranking[0][0]]
    embeddings.close()
    reranker.close()


def test_each_event_loop_has_connections_of_its_own(address: str, ranking: list[tuple[int, float]]) -> None:
    reranker = PairwireRerank(address=address)

    async def ask() -> list[Any]:
        found = await asyncio.gather(*(reranker.acompress_documents(documents(), QUERY) for _ in range(3)))
        await reranker.aclose()
        return found

    for _ in range(2):
        for found in asyncio.run(ask()):
            assert [each.metadata["page"] for each in found] == [index for index, _ in ranking]


def test_what_goes_wrong_is_the_clients_own_error(address: str) -> None:
    reranker = PairwireRerank(address=address, model="nobody")
    with pytest.raises(ModelNotFound, match="no model 'nobody' is loaded; there is"):
        reranker.compress_documents(documents(), QUERY)
    reranker.close()
    impatient = ClientOptions(timeout_s=0.2, retry=RetryPolicy(attempts=1))
    gone = PairwireRerank(address="127.0.0.1:1", options=impatient)
    with pytest.raises((Unavailable, DeadlineExceeded)):
        gone.compress_documents(documents(), QUERY)
    gone.close()
    with pytest.raises(ValueError, match="top_n"):
        PairwireRerank(top_n=0)
    with pytest.raises(ValueError, match="top_k"):
        PairwireRerank(top_k=3)  # type: ignore[call-arg]  # called so elsewhere
