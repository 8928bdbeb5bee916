"""pairwire.v1.EmbeddingService on an engine."""

from __future__ import annotations

from pairwire.v1 import embedding_pb2

from ..config import RequestLimits
from . import codec
from .method import EngineSource, Method, Methods


class EmbeddingServicer:
    """Turns texts into vectors."""

    service = "pairwire.v1.EmbeddingService"

    def __init__(self, engine: EngineSource, limits: RequestLimits) -> None:
        self._engine = engine
        self._limits = limits

    @property
    def methods(self) -> Methods:
        """All RPCs of the service."""
        return (Method("Embed", embedding_pb2.EmbedRequest, self.embed),)

    async def embed(self, request: embedding_pb2.EmbedRequest, timeout_s: float | None) -> embedding_pb2.EmbedResponse:
        """Vectors in input order."""
        options, encoding = codec.decode_embed_options(request), codec.decode_encoding(request)
        texts = codec.decode_texts("texts", request.texts, self._limits)
        result = await self._engine().embed(texts, model=request.model, options=options, timeout_s=timeout_s)
        return codec.encode_embeddings(result, encoding)
