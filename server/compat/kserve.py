"""KServe v2, the Open Inference Protocol, with Triton's additions: inference.GRPCInferenceService on an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from pairwire.foreign import kserve_pb2

from ..config import RequestLimits
from ..engine.off_loop import off_loop
from ..engine.results import ModelInfo
from ..errors import InvalidInput, NotReady, Unsupported
from ..repository.control import Control
from ..rpc.fields import with_block
from ..rpc.health import OVERALL, HealthBoard, model_health_name
from ..rpc.method import Answer, EachAnswered, EngineSource, Headers, Method, Methods
from ..rpc.wire import INLINE_BYTES
from . import kserve_models as models
from .kserve_inference import Inference, infer
from .kserve_models import version_of
from .kserve_parameters import Parameters
from .kserve_statistics import Statistics
from .kserve_wire import encode, parameters_of, read_large, tensors_of, wanted_of
from .roles import Role, Roles

SERVICE = "inference.GRPCInferenceService"
_ERRORS_END_STREAMS = ("triton_grpc_error", "true")
"""Metadata with which a client asks for that; else an error is an answer."""
_INFER_RESPONSE = kserve_pb2.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
_FINAL = "triton_enable_empty_final_response"

_ROLES = ((frozenset({"query", "text_a"}), Role.RERANK), (frozenset({"text"}), Role.EMBED))
"""What a request that names no model is for, by its inputs."""

_REFUSED = {
    "SystemSharedMemoryRegister": "shared memory is not used; send contents in the request",
    "SystemSharedMemoryUnregister": "shared memory is not used; there is nothing to unregister",
    "CudaSharedMemoryRegister": "shared memory is not used; send contents in the request",
    "CudaSharedMemoryUnregister": "shared memory is not used; there is nothing to unregister",
    "TraceSetting": "there are no trace settings; see the server's options",
    "LogSettings": "there are no log settings; see --log-level",
}


class KServeServicer:
    """The whole service."""

    service = SERVICE

    def __init__(
        self,
        engine: EngineSource,
        roles: Roles,
        limits: RequestLimits,
        board: HealthBoard,
        statistics: Statistics,
        control: Control,
    ) -> None:
        self._engine = engine
        self._control = control
        self._roles = roles
        self._limits = limits
        self._board = board
        self._statistics = statistics

    @property
    def methods(self) -> Methods:
        """All RPCs of the service. Probes are answered while models are loaded, and while the server drains."""
        return (
            _method("ServerLive", self.server_live, probe=True),
            _method("ServerReady", self.server_ready, probe=True),
            _method("ModelReady", self.model_ready, probe=True),
            _method("ServerMetadata", self.server_metadata, probe=True),
            _method("ModelMetadata", self.model_metadata),
            _infer("ModelInfer", self.model_infer),
            _infer("ModelStreamInfer", self.model_stream_infer, EachAnswered(_as_answer)),
            _method("ModelConfig", self.model_config),
            _method("ModelStatistics", self.model_statistics),
            _method("RepositoryIndex", self.repository_index),
            _method("RepositoryModelLoad", self.repository_load),
            _method("RepositoryModelUnload", self.repository_unload),
            _method("SystemSharedMemoryStatus", self.system_shared_memory),
            _method("CudaSharedMemoryStatus", self.cuda_shared_memory),
            *(_method(name, _refusing(name, sentence)) for name, sentence in _REFUSED.items()),
        )

    async def server_live(self, request: Any, timeout_s: float | None, large: bool) -> Message:
        """Whoever answers lives."""
        return kserve_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, timeout_s: float | None, large: bool) -> Message:
        """As ``grpc.health.v1`` says of the whole server."""
        return kserve_pb2.ServerReadyResponse(ready=self._board.serving(OVERALL) is True)

    async def model_ready(self, request: kserve_pb2.ModelReadyRequest, timeout_s: float | None, large: bool) -> Message:
        """As ``grpc.health.v1`` says of the model."""
        try:
            info = self._found(request.name, request.version)
        except NotReady:
            return kserve_pb2.ModelReadyResponse(ready=False)
        return kserve_pb2.ModelReadyResponse(ready=self._board.serving(model_health_name(info.name)) is True)

    async def server_metadata(self, request: Any, timeout_s: float | None, large: bool) -> Message:
        """Who answers."""
        return models.server_metadata()

    async def model_metadata(
        self, request: kserve_pb2.ModelMetadataRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """Inputs and outputs of a model."""
        return models.model_metadata(self._found(request.name, request.version))

    async def model_config(
        self, request: kserve_pb2.ModelConfigRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """A model as Triton would be configured for it."""
        config = models.model_config(self._found(request.name, request.version))
        return kserve_pb2.ModelConfigResponse(config=config)

    async def model_statistics(
        self, request: kserve_pb2.ModelStatisticsRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """What a model has done, or all of them."""
        engine = self._engine()
        chosen = [self._found(request.name, request.version)] if request.name else list(engine.models.values())
        return kserve_pb2.ModelStatisticsResponse(
            model_stats=[models.model_statistics(info, self._statistics) for info in chosen]
        )

    async def repository_index(
        self, request: kserve_pb2.RepositoryIndexRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """All models, by name."""
        if request.repository_name:
            raise Unsupported(f"repository_name: {request.repository_name!r} is unknown; there is one, without a name")
        response = kserve_pb2.RepositoryIndexResponse()
        for row in await models.model_index(
            self._engine(), self._control, lambda name: self._board.serving(model_health_name(name)) is True
        ):
            if row.serves or not request.ready:
                state = "READY" if row.serves else "UNAVAILABLE"
                response.models.add(name=row.model, version=row.version, state=state, reason=row.reason)
        return response

    async def repository_load(
        self, request: kserve_pb2.RepositoryModelLoadRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """Serves the newest version of a model, or the one that the parameter ``version`` names."""
        await self._control.load(_model_of(request), version_of(_given(request)))
        return kserve_pb2.RepositoryModelLoadResponse()

    async def repository_unload(
        self, request: kserve_pb2.RepositoryModelUnloadRequest, timeout_s: float | None, large: bool
    ) -> Message:
        """Serves a model no longer. Triton's parameter ``unload_dependents`` changes nothing: there are none."""
        await self._control.unload(_model_of(request))
        return kserve_pb2.RepositoryModelUnloadResponse()

    async def system_shared_memory(self, request: Any, timeout_s: float | None, large: bool) -> Message:
        """There are no regions."""
        return kserve_pb2.SystemSharedMemoryStatusResponse()

    async def cuda_shared_memory(self, request: Any, timeout_s: float | None, large: bool) -> Message:
        """There are no regions."""
        return kserve_pb2.CudaSharedMemoryStatusResponse()

    async def model_infer(self, request: kserve_pb2.ModelInferRequest, timeout_s: float | None, large: bool) -> Message:
        """Scores, vectors or weights."""
        engine, info = self._engine(), self._meant(request)
        parameters = Parameters(parameters_of(request.parameters))
        inference = Inference(
            model=info,
            inputs=await off_loop(large, tensors_of, request, self._limits),
            outputs=wanted_of(request),
            parameters=parameters,
        )
        outputs = await infer(engine, inference, self._limits, timeout_s)
        much = sum(each.values.nbytes for each in outputs if not isinstance(each.values, list)) > INLINE_BYTES
        return await off_loop(much, encode, request, info.name, info.version, outputs)

    async def model_stream_infer(
        self, request: kserve_pb2.ModelInferRequest, timeout_s: float | None, large: bool
    ) -> Answer:
        """The same, as an answer of a stream."""
        response: Any = await self.model_infer(request, timeout_s, large)
        if request.parameters and _FINAL in request.parameters:
            response.parameters["triton_final_response"].bool_param = True
        block = with_block(kserve_pb2.ModelStreamInferResponse(), _INFER_RESPONSE, [response.SerializeToString()])
        return b"".join(block)

    def _meant(self, request: kserve_pb2.ModelInferRequest) -> ModelInfo:
        """The model that a request names, or else the one that its inputs are for."""
        if request.model_name:
            return self._found(request.model_name, request.model_version)
        given = {each.name for each in request.inputs}
        for names, role in _ROLES:
            if given & names:
                return self._roles.find(role)
        return self._engine().find("")

    def _found(self, name: str, version: str) -> ModelInfo:
        info = self._engine().find(name)
        models.check_version(info, version)
        return info


Call = Callable[[Any, "float | None", bool], Awaitable[Answer]]


def _method(name: str, call: Call, *, probe: bool = False) -> Method[Any]:
    return Method(name, getattr(kserve_pb2, f"{name}Request"), call, label=f"kserve.{name}", probe=probe)


def _infer(name: str, call: Call, stream: EachAnswered | None = None) -> Method[Any]:
    label = f"kserve.{name}"
    return Method(name, kserve_pb2.ModelInferRequest, call, label=label, stream=stream, read_large=read_large)


def _as_answer(request: Message | None, sentence: str, headers: Headers) -> Answer | None:
    """An error of a stream as an answer; the stream goes on."""
    if _ERRORS_END_STREAMS in headers:
        return None
    response = kserve_pb2.ModelStreamInferResponse(error_message=sentence)
    if isinstance(request, kserve_pb2.ModelInferRequest):
        response.infer_response.id = request.id
    return response


def _model_of(
    request: kserve_pb2.RepositoryModelLoadRequest | kserve_pb2.RepositoryModelUnloadRequest,
) -> str:
    if request.repository_name and not request.model_name:
        raise InvalidInput(
            "model_name",
            f"empty, and repository_name is {request.repository_name!r}: KServe's own message has the model's name "
            "in field 1, Triton's in field 2; this server reads Triton's",
        )
    if request.repository_name:
        raise Unsupported(f"repository_name: {request.repository_name!r} is unknown; there is one, without a name")
    if not request.model_name:
        raise InvalidInput("model_name", "empty; name one")
    return request.model_name


def _given(request: kserve_pb2.RepositoryModelLoadRequest) -> dict[str, object]:
    """Parameters of loading by name."""
    return {
        name: getattr(given, given.WhichOneof("parameter_choice") or "string_param")
        for name, given in request.parameters.items()
    }


def _refusing(name: str, sentence: str) -> Call:
    async def refuse(request: Any, timeout_s: float | None, large: bool) -> Message:
        raise Unsupported(f"{name}: {sentence}")

    return refuse
