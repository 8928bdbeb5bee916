"""LlamaIndex: a node postprocessor that reranks, and an embedding. Needs llama-index-core.

engine = index.as_query_engine(similarity_top_k=100, node_postprocessors=[PairwireRerank(top_n=5)])
"""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import SkipValidation

from pairwire.client import ClientOptions, RerankResult
from pairwire.client.options import DEFAULT_ADDRESS

from .serving import Clients, Embedder, Reading

BATCH = 256
"""Texts that the framework hands over at once; the client splits and joins them as it sees fit."""


class PairwireRerank(BaseNodePostprocessor):
    """The nodes that answer the query best, best first, with their scores.

    The text of a node is what it would be embedded as, metadata included, as in the framework's other rerankers.
    """

    address: str = Field(default=DEFAULT_ADDRESS, description="Of the server, host:port.")
    model: str = Field(default="", description="May be empty where the server has exactly one cross-encoder.")
    top_n: int | None = Field(default=None, ge=1, description="How many nodes are kept; None means all.")
    timeout_s: float | None = Field(default=None, description="Seconds that a request may take.")
    options: SkipValidation[ClientOptions] | None = Field(default=None, exclude=True, description="TLS, retries, keys.")

    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Has the clients there; nothing connects yet."""
        super().model_post_init(context)
        self._clients = Clients(self.address, self.options)

    @classmethod
    def class_name(cls) -> str:
        """For the framework's own serialisation."""
        return "PairwireRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        found = self._clients.blocking().rerank(
            _query(query_bundle), _texts(nodes), top_k=self.top_n, model=self.model, timeout_s=self.timeout_s
        )
        return _scored(nodes, found)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        found = await self._clients.of_loop().rerank(
            _query(query_bundle), _texts(nodes), top_k=self.top_n, model=self.model, timeout_s=self.timeout_s
        )
        return _scored(nodes, found)

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def aclose(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise ValueError("query_bundle: missing; nodes are ranked for a query, give query_str or query_bundle")
    text: str = bundle.query_str
    return text


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _scored(nodes: list[NodeWithScore], ranking: RerankResult) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[found.index].node, score=found.score) for found in ranking]


class PairwireEmbedding(BaseEmbedding):
    """Vectors by a bi-encoder on a Pairwire server; queries and texts get the checkpoint's prompts for them."""

    address: str = Field(default=DEFAULT_ADDRESS, description="Of the server, host:port.")
    model: str = Field(default="", description="May be empty where the server has exactly one bi-encoder.")
    query_prompt_name: str | None = Field(default=None, description="Before queries; None: the checkpoint's own.")
    document_prompt_name: str | None = Field(default=None, description="Before texts; None: the checkpoint's own.")
    dimensions: int | None = Field(default=None, description="Numbers of a vector that are kept (Matryoshka).")
    normalize: bool | None = Field(default=None, description="Unit length; None: as the checkpoint does.")
    options: SkipValidation[ClientOptions] | None = Field(default=None, exclude=True, description="TLS, retries, keys.")
    embed_batch_size: int = Field(default=BATCH, gt=0, le=2048, description="Texts that are handed over at once.")

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

    @classmethod
    def class_name(cls) -> str:
        """For the framework's own serialisation."""
        return "PairwireEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._embedder.aquery(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.documents([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._embedder.adocuments([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.documents(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embedder.adocuments(texts)

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def aclose(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()
