"""Haystack: a ranker, and embedders of texts and documents, for pipelines. Needs haystack-ai.

pipeline.add_component("ranker", PairwireRanker(address="localhost:50051", top_k=5))
pipeline.connect("retriever.documents", "ranker.documents")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from pairwire.client import RerankResult
from pairwire.client.options import DEFAULT_ADDRESS

from .serving import Clients, Embedder, Reading


@component
class PairwireRanker:
    """The documents that answer the query best, best first, with their scores. What comes in is not changed."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        model: str = "",
        top_k: int | None = None,
        timeout_s: float | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
    ) -> None:
        """``model`` may be empty where the server has exactly one cross-encoder; ``top_k`` None keeps all.

        ``meta_fields_to_embed`` are put before the text of a document, with ``embedding_separator`` between them.
        """
        self.address = address
        self.model = model
        self.top_k = top_k
        self.timeout_s = timeout_s
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.embedding_separator = embedding_separator
        self._clients = Clients(address)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best documents, best first."""
        if not documents:
            return {"documents": []}
        found = self._clients.blocking().rerank(
            query, self._texts(documents), top_k=top_k or self.top_k, model=self.model, timeout_s=self.timeout_s
        )
        return {"documents": _scored(documents, found)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As ``run``."""
        if not documents:
            return {"documents": []}
        found = await self._clients.of_loop().rerank(
            query, self._texts(documents), top_k=top_k or self.top_k, model=self.model, timeout_s=self.timeout_s
        )
        return {"documents": _scored(documents, found)}

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        data: dict[str, Any] = default_to_dict(
            self,
            address=self.address,
            model=self.model,
            top_k=self.top_k,
            timeout_s=self.timeout_s,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairwireRanker:
        """The component of a saved pipeline."""
        made: PairwireRanker = default_from_dict(cls, data)
        return made

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def close_async(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()

    def _texts(self, documents: Sequence[Document]) -> list[str]:
        return [_text(each, self.meta_fields_to_embed, self.embedding_separator) for each in documents]


@component
class PairwireTextEmbedder:
    """The vector of a query, with the checkpoint's prompt for queries."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        model: str = "",
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
    ) -> None:
        """`pairwire.integrations.serving.Reading` says what the last four mean."""
        self.address = address
        self.model = model
        self.prompt_name = prompt_name
        self.dimensions = dimensions
        self.normalize = normalize
        self._clients = Clients(address)
        reading = Reading(model=model, query_prompt_name=prompt_name, dimensions=dimensions, normalize=normalize)
        self._embedder = Embedder(self._clients, reading)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The vector."""
        return {"embedding": self._embedder.query(text)}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """As ``run``."""
        return {"embedding": await self._embedder.aquery(text)}

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        data: dict[str, Any] = default_to_dict(
            self,
            address=self.address,
            model=self.model,
            prompt_name=self.prompt_name,
            dimensions=self.dimensions,
            normalize=self.normalize,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairwireTextEmbedder:
        """The component of a saved pipeline."""
        made: PairwireTextEmbedder = default_from_dict(cls, data)
        return made

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def close_async(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()


@component
class PairwireDocumentEmbedder:
    """Documents with their vectors, with the checkpoint's prompt for documents. What comes in is not changed."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        model: str = "",
        prompt_name: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
    ) -> None:
        """`pairwire.integrations.serving.Reading` says what model, prompt, dimensions and normalize mean.

        ``meta_fields_to_embed`` are put before the text of a document, with ``embedding_separator`` between them.
        """
        self.address = address
        self.model = model
        self.prompt_name = prompt_name
        self.dimensions = dimensions
        self.normalize = normalize
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.embedding_separator = embedding_separator
        self._clients = Clients(address)
        reading = Reading(model=model, document_prompt_name=prompt_name, dimensions=dimensions, normalize=normalize)
        self._embedder = Embedder(self._clients, reading)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """The documents with their vectors, in their order."""
        return {"documents": _embedded(documents, self._embedder.documents(self._texts(documents)))}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """As ``run``."""
        return {"documents": _embedded(documents, await self._embedder.adocuments(self._texts(documents)))}

    def to_dict(self) -> dict[str, Any]:
        """For pipelines that are saved."""
        data: dict[str, Any] = default_to_dict(
            self,
            address=self.address,
            model=self.model,
            prompt_name=self.prompt_name,
            dimensions=self.dimensions,
            normalize=self.normalize,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairwireDocumentEmbedder:
        """The component of a saved pipeline."""
        made: PairwireDocumentEmbedder = default_from_dict(cls, data)
        return made

    def close(self) -> None:
        """Closes the connections of the blocking calls."""
        self._clients.close()

    async def close_async(self) -> None:
        """Closes all connections of this event loop."""
        await self._clients.aclose()

    def _texts(self, documents: Sequence[Document]) -> list[str]:
        return [_text(each, self.meta_fields_to_embed, self.embedding_separator) for each in documents]


def _text(document: Document, fields: Sequence[str], separator: str) -> str:
    values = [str(document.meta[name]) for name in fields if document.meta.get(name)]
    return separator.join([*values, document.content or ""])


def _scored(documents: Sequence[Document], ranking: RerankResult) -> list[Document]:
    return [replace(documents[found.index], score=found.score) for found in ranking]


def _embedded(documents: Sequence[Document], vectors: Sequence[list[float]]) -> list[Document]:
    return [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]
