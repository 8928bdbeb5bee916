"""TEI's ``/embed``, ``/embed_sparse`` and ``/similarity``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ....engine.off_loop import off_loop
from ....engine.outputs.similarity import cosine
from ....engine.outputs.vectors import INLINE_BYTES
from ....engine.results import EmbedOptions, EmbedResult, SparseOptions, SparseResult
from ....engine.text.token_ids import Text
from ....errors import InvalidInput, Unsupported
from ....rpc.embedding import dimensions_of
from ....rpc.texts import decode_text, decode_texts
from ....rpc.vectors import check_rows, check_weights
from ...roles import Role
from ..answers import Answer, encode
from ..openai import FLOAT_BYTES
from ..reading import JsonReader
from ..routes import Asked, Route, Services
from ..texts import Given, names_of, naming, read_texts
from .common import TEI, EmptyInput, check_given, headers, reading
from .types import EmbedRequest, Sentences, SimilarityParameters, SimilarityRequest, SparseValue

_WEIGHT_BYTES = 40
"""Of a weight and its index in JSON, at most."""


class Vectors:
    """Texts -> vectors."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        reader = JsonReader(EmbedRequest)
        yield Route.post("/embed", self.embed, TEI, "Vectors of texts (TEI)", reader, list[list[float]])
        sparse = list[list[SparseValue]]
        yield Route.post("/embed_sparse", self.embed_sparse, TEI, "Sparse vectors of texts (TEI)", reader, sparse)
        vectors_of_tokens = list[list[list[float]]]
        summary = "Vectors of tokens (TEI): not served"
        yield Route.post("/embed_all", self.embed_all, TEI, summary, reader, vectors_of_tokens)
        similarity = JsonReader(SimilarityRequest)
        yield Route.post("/similarity", self.similarity, TEI, "Cosine of sentences (TEI)", similarity, list[float])

    async def embed(self, asked: Asked[Any]) -> Answer:
        """One row a text; a text alone is a row too."""
        limits = self._services.limits
        request: EmbedRequest = asked.body
        found = self._services.find(asked, Role.EMBED, None)
        if request.dimensions is not None and request.dimensions < 1:
            raise InvalidInput("dimensions", f"{request.dimensions} is no number of dimensions; give one above 0")
        options = EmbedOptions(
            **reading(request),
            prompt_name=request.prompt_name,
            dimensions=request.dimensions,
            normalize=request.normalize is not False,
        )
        given = await self._texts(asked)
        width = dimensions_of(found, options)
        with naming(names_of("inputs", given)):
            check_rows(len(given.texts), width, FLOAT_BYTES * width, "JSON", limits)
            result = await self._services.engine().embed(
                given.texts, model=found.name, options=options, timeout_s=asked.timeout_s
            )
        body = await off_loop(result.embeddings.nbytes > INLINE_BYTES, _encoded, result)
        return Answer(body, headers=headers(asked, found, given.texts, result.usage, result.timing))

    async def embed_sparse(self, asked: Asked[EmbedRequest]) -> Answer:
        """The tokens that have weight, by ascending index."""
        request = asked.body
        found = self._services.find(asked, Role.SPARSE, None)
        options = SparseOptions(**reading(request), prompt_name=request.prompt_name)
        given = await self._texts(asked)
        with naming(names_of("inputs", given)):
            result = await self._services.engine().embed_sparse(
                given.texts, model=found.name, options=options, timeout_s=asked.timeout_s
            )
            check_weights(result, self._services.limits, _WEIGHT_BYTES)
        body = await off_loop(result.values.nbytes > INLINE_BYTES >> 4, _encoded_sparse, result)
        return Answer(body, headers=headers(asked, found, given.texts, result.usage, result.timing))

    async def embed_all(self, asked: Asked[EmbedRequest]) -> Answer:
        """No model here gives a vector for each token."""
        raise Unsupported("vectors of single tokens are not served here; /embed gives one for each text")

    async def similarity(self, asked: Asked[SimilarityRequest]) -> Answer:
        """The cosine of the first sentence with each other."""
        return await self.compare(asked, asked.body.inputs, asked.body.parameters)

    async def compare(self, asked: Asked[Any], inputs: Sentences, parameters: SimilarityParameters | None) -> Answer:
        """As ``similarity``, whatever the request that they came in."""
        found = self._services.find(asked, Role.EMBED, None)
        limits, parameters = self._services.limits, parameters or SimilarityParameters()
        if not inputs.sentences:
            raise EmptyInput("inputs.sentences", "empty; give at least one")
        texts: list[Text] = [decode_text("inputs.source_sentence", inputs.source_sentence, limits)]
        texts += await off_loop(asked.large, decode_texts, "inputs.sentences", inputs.sentences, limits)
        options = EmbedOptions(**reading(parameters), prompt_name=parameters.prompt_name)
        result = await self._services.engine().embed(
            texts, model=found.name, options=options, timeout_s=asked.timeout_s
        )
        body = await off_loop(result.embeddings.nbytes > INLINE_BYTES, _compared, result)
        return Answer(body, headers=headers(asked, found, texts, result.usage, result.timing))

    async def _texts(self, asked: Asked[EmbedRequest]) -> Given:
        limits = self._services.limits
        given = await off_loop(asked.large, read_texts, "inputs", asked.body.inputs, limits, mixed=True)
        check_given("inputs", given)
        return given


def _encoded(result: EmbedResult) -> bytes:
    return encode(np.ascontiguousarray(result.embeddings))


def _encoded_sparse(result: SparseResult) -> bytes:
    indices, values, rows, begin = result.indices.tolist(), list(result.values), [], 0
    for count in result.counts.tolist():
        here = slice(begin, begin + count)
        pairs = zip(indices[here], values[here], strict=True)
        rows.append([{"index": index, "value": value} for index, value in pairs])
        begin += count
    return encode(rows)


def _compared(result: EmbedResult) -> bytes:
    return encode(cosine(result.embeddings[0], result.embeddings[1:]))
