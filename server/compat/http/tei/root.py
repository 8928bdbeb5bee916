"""TEI's root, where clients of Hugging Face's endpoints send everything; and what SageMaker and Vertex AI call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ....engine.off_loop import at_once, off_loop
from ....errors import InvalidInput
from ...roles import Role
from ..answers import Answer
from ..reading import JsonReader
from ..routes import Asked, Route, Services
from ..texts import UNSET, Anything, Document, decode, is_unset
from .common import TEI, EmptyInput
from .labels import Labels
from .types import Reading, Sentences, SimilarityParameters
from .vectors import Vectors
from .zero_shot import ZeroShot, has_labels

_SENTENCES = msgspec.json.Decoder(Sentences, strict=False).decode
_PARAMETERS = msgspec.json.Decoder(SimilarityParameters, strict=False).decode


class RootRequest(Reading, kw_only=True):
    """Any of TEI's requests: which one is told by its fields."""

    inputs: Anything = UNSET
    parameters: Anything = UNSET
    query: str | Document | None = None
    texts: list[str] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    normalize: bool | None = None
    prompt_name: str | None = None
    dimensions: int | None = None


class VertexRequest(msgspec.Struct):
    """Several requests of the kind that the root takes."""

    instances: list[RootRequest]


class Root:
    """``/``, ``/invocations`` and ``/vertex``."""

    def __init__(self, services: Services, vectors: Vectors, labels: Labels, zero_shot: ZeroShot) -> None:
        self._services = services
        self._vectors = vectors
        self._labels = labels
        self._zero_shot = zero_shot

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        reader = JsonReader(RootRequest)
        for path in ("/", "/invocations"):
            yield Route.post(path, self.any, TEI, "Any request of TEI, told by its fields", reader, Any)
        vertex = JsonReader(VertexRequest)
        yield Route.post("/vertex", self.vertex, TEI, "Several requests of TEI (Vertex AI)", vertex, dict[str, Any])

    async def any(self, asked: Asked[RootRequest]) -> Answer:
        """Told by its fields: ``texts`` -> rerank; candidate labels -> zero-shot; ``inputs`` an object -> similarity.

        Else vectors, or labels where none are served.
        """
        request = asked.body
        if request.texts is not None:
            if request.query is None:
                raise InvalidInput("query", "missing; texts are ranked for a query")
            return await self._labels.rerank(asked)
        if is_unset(request.inputs):
            raise EmptyInput("inputs", "empty; give inputs, or query and texts")
        if has_labels(request.parameters):
            return await self._zero_shot.told_by_labels(asked, request.inputs, request.parameters)
        if bytes(memoryview(request.inputs)[:1]) == b"{":
            return await self._compared(asked, request.inputs, request.parameters)
        if self._services.serves(Role.EMBED):
            return await self._vectors.embed(asked)
        return await self._labels.predict(asked)

    async def vertex(self, asked: Asked[VertexRequest]) -> Answer:
        """An answer for each instance, in their order."""
        instances = asked.body.instances
        most = self._services.limits.max_items
        if not instances:
            raise EmptyInput("instances", "empty; give at least one")
        if len(instances) > most:
            raise InvalidInput("instances", f"{len(instances)} exceed --max-items {most}; send several requests")
        answers = await at_once(*(self.any(asked.part(each)) for each in instances))
        return Answer(b'{"predictions":[%s]}' % b",".join(answer.body for answer in answers))

    async def _compared(self, asked: Asked[RootRequest], inputs: msgspec.Raw, parameters: msgspec.Raw) -> Answer:
        sentences = await off_loop(asked.large, decode, _SENTENCES, bytes(inputs), "inputs")
        read = None if is_unset(parameters) else decode(_PARAMETERS, bytes(parameters), "parameters")
        return await self._vectors.compare(asked, sentences, read)
