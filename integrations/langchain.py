"""LangChain: a `BaseDocumentCompressor` that reranks, and `Embeddings`. Needs langchain-core.

from langchain_classic.retrievers import ContextualCompressionRetriever

retriever = ContextualCompressionRetriever(
    base_compressor=PairwireRerank(address="localhost:50051", top_n=5),
    base_retriever=store.as_retriever(search_kwargs={"k": 100}),
)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SkipValidation

from pairwire.client import ClientOptions, RerankResult
from pairwire.client.options import DEFAULT_ADDRESS

from .serving import Clients, Embedder, Reading

SCORE_KEY = "relevance_score"
"""Where a document's metadata has its score, as LangChain's other rerankers have it."""


class PairwireRerank(BaseDocumentCompressor):
    """The documents that answer the query best, best first, with ``relevance_score`` in their metadata.

    What comes in is not changed. An empty list is an empty list, and asks no server.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    address: str = DEFAULT_ADDRESS
    """Of the server, ``host:port``."""
    model: str = ""
    """May be empty where the server has exactly one cross-encoder."""
    top_n: int | None = Field(default=None, ge=1)
    """How many documents are kept; None means all."""
    timeout_s: float | None = None
    """Seconds that a request may take; None means what ``options`` say."""
    options: SkipValidation[ClientOptions] | None = Field(default=None, exclude=True)
    """TLS, retries, metadata such as an API key: see `ClientOptions`."""

    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Has the clients there; nothing connects yet."""
        super().model_post_init(context)
        self._clients = Clients(self.address, self.options)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, best first."""
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        found = self._clients.blocking().rerank(
            query, texts, top_k=self.top_n, model=self.model, timeout_s=self.timeout_s
        )
        return _scored(documents, found)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """As ``compress_documents``."""
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        found = await self._clients.of_loop().rerank(
            query, texts, top_k=self.top_n, model=self.model, timeout_s=self.timeout_s
        )
        return _scored(documents, found)

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def aclose(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()


def _scored(documents: Sequence[Document], ranking: RerankResult) -> list[Document]:
    return [
        documents[found.index].model_copy(
            update={"metadata": {**documents[found.index].metadata, SCORE_KEY: found.score}}
        )
        for found in ranking
    ]


class PairwireEmbeddings(BaseModel, Embeddings):
    """Vectors by a bi-encoder on a Pairwire server; queries and documents get the checkpoint's prompts for them."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    address: str = DEFAULT_ADDRESS
    """Of the server, ``host:port``."""
    model: str = ""
    """May be empty where the server has exactly one bi-encoder."""
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    """These four: see `pairwire.integrations.serving.Reading`."""
    options: SkipValidation[ClientOptions] | None = Field(default=None, exclude=True)
    """TLS, retries, metadata such as an API key: see `ClientOptions`."""

    _clients: Clients = PrivateAttr()
    _embedder: Embedder = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Has the clients there; nothing connects yet."""
        super().model_post_init(context)
        self._clients = Clients(self.address, self.options)
        self._embedder = Embedder(
            self._clients,
            Reading(
                model=self.model,
                query_prompt_name=self.query_prompt_name,
                document_prompt_name=self.document_prompt_name,
                dimensions=self.dimensions,
                normalize=self.normalize,
            ),
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in their order."""
        return self._embedder.documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embedder.query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As ``embed_documents``."""
        return await self._embedder.adocuments(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As ``embed_query``."""
        return await self._embedder.aquery(text)

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def aclose(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()
