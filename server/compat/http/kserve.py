"""KServe v2, the Open Inference Protocol, over REST, with Triton's additions and its raw contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

import msgspec
from google.protobuf.message import Message

from ...engine.off_loop import off_loop
from ...engine.results import ModelInfo
from ...errors import NotReady
from ...repository.control import Control
from ...rpc.wire import INLINE_BYTES
from ...security.roles import ANY, OPERATE
from .. import kserve_models as models
from ..kserve_inference import Inference, infer
from ..kserve_parameters import Parameters
from ..kserve_statistics import Statistics
from .answers import Answer, encode, json_answer
from .errors import Family
from .kserve_wire import InferAnswer, InferReader, answer_of, parameters_of, tensors_of
from .reading import JsonReader
from .routes import Asked, Route, Services


class KServeError(TypedDict):
    """The answer to a request that failed."""

    error: str


KSERVE = Family("kserve", lambda failure: {"error": failure.message}, error_type=KServeError)

_OF_A_MODEL = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


class ServerMetadata(TypedDict):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class IndexRequest(msgspec.Struct):
    """Which models are listed."""

    ready: bool | None = None


class ChangeRequest(msgspec.Struct):
    """How a model is loaded or unloaded."""

    parameters: dict[str, bool | int | str] | None = None


class ModelIndex(TypedDict):
    """A model in the list."""

    name: str
    version: str
    state: str
    reason: str


class KServe:
    """``/v2``."""

    def __init__(
        self, services: Services, statistics: Statistics, serves: Callable[[str], bool], control: Control
    ) -> None:
        """``serves`` tells whether a model works, by its name; the whole server's is empty."""
        self._services = services
        self._control = control
        self._statistics = statistics
        self._serves = serves

    @property
    def routes(self) -> Iterable[Route]:
        """All of them; ``/v2/models/stats`` goes before a model of that name."""
        yield Route.get("/v2", self.server, KSERVE, "Who answers (KServe v2)", ServerMetadata, guarded=False, need=ANY)
        yield Route.get("/v2/health/live", self.live, KSERVE, "200 (KServe v2)", dict[str, Any], guarded=False)
        yield Route.get("/v2/health/ready", self.ready, KSERVE, "200 or 503 (KServe v2)", dict[str, Any], guarded=False)
        yield Route.get("/v2/models/stats", self.all_statistics, KSERVE, "What models have done", dict[str, Any])
        index = JsonReader(IndexRequest, may_be_empty=True)
        summary = "All models (Triton)"
        yield Route.post("/v2/repository/index", self.index, KSERVE, summary, index, list[ModelIndex], need=ANY)
        changes, path = JsonReader(ChangeRequest, may_be_empty=True), "/v2/repository/models/{name}"
        for what, change, summary in (
            ("load", self.load, "Serves a model of the repository"),
            ("unload", self.unload, "Serves a model no longer"),
        ):
            yield Route.post(f"{path}/{what}", change, KSERVE, summary, changes, dict[str, Any], need=OPERATE)
        for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status"):
            yield Route.get(path, self.no_regions, KSERVE, "There are no regions", list[dict[str, Any]])
        for path in _OF_A_MODEL:
            yield Route.get(path, self.metadata, KSERVE, "Inputs and outputs (KServe v2)", dict[str, Any])
            yield Route.get(
                f"{path}/ready", self.model_ready, KSERVE, "200 or 503 (KServe v2)", dict[str, Any], guarded=False
            )
            yield Route.get(f"{path}/config", self.config, KSERVE, "As Triton would have it", dict[str, Any])
            yield Route.get(f"{path}/stats", self.statistics, KSERVE, "What it has done (Triton)", dict[str, Any])
            summary = "Tensors of texts or token ids -> scores or vectors (KServe v2)"
            yield Route.post(f"{path}/infer", self.infer, KSERVE, summary, InferReader(), InferAnswer)

    async def infer(self, asked: Asked[Any]) -> Answer:
        """Scores, vectors or weights."""
        found = self._found(asked)
        request = asked.body.request
        inference = Inference(
            model=found,
            inputs=await off_loop(asked.large, tensors_of, asked.body, self._services.limits),
            outputs=[each.name for each in request.outputs or ()],
            parameters=Parameters(parameters_of(request)),
        )
        outputs = await infer(self._services.engine(), inference, self._services.limits, asked.timeout_s)
        much = sum(each.values.nbytes for each in outputs if not isinstance(each.values, list)) > INLINE_BYTES
        return await off_loop(much, answer_of, request, found.name, found.version, outputs)

    async def server(self, asked: Asked[Any]) -> Answer:
        """Name, version, extensions."""
        return await json_answer(_plain(models.server_metadata()))

    async def live(self, asked: Asked[Any]) -> Answer:
        """Whoever answers lives."""
        return await json_answer({"live": True})

    async def ready(self, asked: Asked[Any]) -> Answer:
        """Whether every model serves."""
        return _readiness({"ready": self._serves("")})

    async def model_ready(self, asked: Asked[Any]) -> Answer:
        """Whether a model serves."""
        try:
            name = self._found(asked).name
        except NotReady:
            return _readiness({"name": asked.params["name"], "ready": False})
        return _readiness({"name": name, "ready": self._serves(name)})

    async def metadata(self, asked: Asked[Any]) -> Answer:
        """Inputs and outputs of a model."""
        return await json_answer(_plain(models.model_metadata(self._found(asked))))

    async def config(self, asked: Asked[Any]) -> Answer:
        """A model as Triton would be configured for it."""
        return await json_answer(_plain(models.model_config(self._found(asked))))

    async def statistics(self, asked: Asked[Any]) -> Answer:
        """What a model has done."""
        return await self._told([self._found(asked)])

    async def all_statistics(self, asked: Asked[Any]) -> Answer:
        """What all models have done."""
        return await self._told(self._services.engine().models.values())

    async def index(self, asked: Asked[IndexRequest]) -> Answer:
        """All models, by name."""
        rows: list[ModelIndex] = []
        for row in await models.model_index(self._services.engine(), self._control, self._serves):
            if row.serves or not asked.body.ready:
                state = "READY" if row.serves else "UNAVAILABLE"
                rows.append({"name": row.model, "version": row.version, "state": state, "reason": row.reason})
        return await json_answer(rows)

    async def no_regions(self, asked: Asked[Any]) -> Answer:
        """Shared memory is not used."""
        return await json_answer([])

    async def load(self, asked: Asked[ChangeRequest]) -> Answer:
        """Serves the newest version of a model, or the one that the parameter ``version`` names."""
        await self._control.load(asked.params["name"], models.version_of(asked.body.parameters or {}))
        return await json_answer({})

    async def unload(self, asked: Asked[ChangeRequest]) -> Answer:
        """Serves a model no longer."""
        await self._control.unload(asked.params["name"])
        return await json_answer({})

    def _found(self, asked: Asked[Any]) -> ModelInfo:
        asked.model = asked.params["name"]
        found = self._services.engine().find(asked.model)
        models.check_version(found, asked.params.get("version", ""))
        return found

    async def _told(self, infos: Iterable[ModelInfo]) -> Answer:
        rows = [_plain(models.model_statistics(info, self._statistics), whole=True) for info in infos]
        return await json_answer({"model_stats": rows})


def _readiness(told: dict[str, Any]) -> Answer:
    return Answer(encode(told), 200 if told["ready"] else 503)


def _plain(message: Message, *, whole: bool = False) -> dict[str, Any]:
    """A message as JSON has it: 64-bit integers are numbers, which protobuf's own JSON makes strings of.

    ``whole``: fields that are not set, too.
    """
    found: dict[str, Any] = {}
    given = {field.name: value for field, value in message.ListFields()}
    fields = message.DESCRIPTOR.fields if whole else [field for field, _ in message.ListFields()]
    for field in fields:
        value = given.get(field.name, [] if field.is_repeated else getattr(message, field.name))
        found[field.name] = _value(field, value, whole)
    return found


def _value(field: Any, value: Any, whole: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each, whole=whole) if isinstance(each, Message) else each for key, each in value.items()}
    if field.is_repeated:
        return [_one(field, each, whole) for each in value]
    return _one(field, value, whole)


def _one(field: Any, value: Any, whole: bool) -> Any:
    if isinstance(value, Message):
        return _plain(value, whole=whole)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
