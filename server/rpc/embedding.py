"""pairwire.v1.EmbeddingService on an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pairwire.v1 import embedding_pb2

from ..config import RequestLimits
from ..engine.encodings import check_encoding
from ..engine.kinds import ModelKind
from ..engine.off_loop import off_loop
from ..engine.outputs.vectors import INLINE_BYTES
from ..engine.results import EmbedOptions, ModelInfo
from ..engine.text.token_ids import Text
from ..errors import InvalidInput
from . import codec
from .method import EngineSource, Method, Methods
from .texts import check_prompt, decode_single_texts
from .vectors import check_vectors, check_weights, encode_embeddings, encode_sparse


class EmbeddingServicer:
    """Turns texts into vectors."""

    service = "pairwire.v1.EmbeddingService"

    def __init__(self, engine: EngineSource, limits: RequestLimits) -> None:
        self._engine = engine
        self._limits = limits

    @property
    def methods(self) -> Methods:
        """All RPCs of the service."""
        return (
            Method("Embed", embedding_pb2.EmbedRequest, self.embed),
            Method("EmbedSparse", embedding_pb2.EmbedSparseRequest, self.embed_sparse),
        )

    async def embed(self, request: embedding_pb2.EmbedRequest, timeout_s: float | None, large: bool) -> bytes:
        """Vectors in input order."""
        engine, options, encoding = self._engine(), codec.decode_embed_options(request), codec.decode_encoding(request)
        texts = await off_loop(large, self._texts, request)
        found = engine.find(request.model, ModelKind.BI_ENCODER)
        with _naming_field(request):
            check_encoding(encoding, found, options)
            check_vectors(len(texts), dimensions_of(found, options), encoding, self._limits)
            result = await engine.embed(texts, model=found.name, options=options, timeout_s=timeout_s)
            much = result.embeddings.nbytes > INLINE_BYTES
            return await off_loop(much, encode_embeddings, result, encoding, found)

    async def embed_sparse(
        self, request: embedding_pb2.EmbedSparseRequest, timeout_s: float | None, large: bool
    ) -> bytes:
        """Sparse vectors in input order."""
        engine, options = self._engine(), codec.decode_sparse_options(request)
        texts = await off_loop(large, self._texts, request)
        with _naming_field(request):
            result = await engine.embed_sparse(texts, model=request.model, options=options, timeout_s=timeout_s)
            check_weights(result, self._limits)
        return await off_loop(result.values.nbytes > INLINE_BYTES, encode_sparse, result)

    def _texts(self, request: embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest) -> list[Text]:
        texts = decode_single_texts(request, self._limits)
        check_prompt(request.prompt, len(texts), self._limits)
        return texts


def dimensions_of(info: ModelInfo, options: EmbedOptions) -> int:
    """Numbers of a vector; what is more than there are is left to the engine to refuse."""
    whole = info.manifest.dimensions
    return min(options.dimensions or info.manifest.default_dimensions or whole, whole)


@contextmanager
def _naming_field(request: embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest) -> Iterator[None]:
    """Whatever is embedded is ``texts`` to the engine; here it may be ``token_ids``."""
    try:
        yield
    except InvalidInput as error:
        if request.token_ids and error.field.startswith("texts"):
            raise InvalidInput(f"token_ids{error.field.removeprefix('texts')}", error.reason) from None
        raise
