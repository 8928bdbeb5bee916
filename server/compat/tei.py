"""tei.v1, the gRPC protocol of Hugging Face's text-embeddings-inference: six services on an engine.

It knows of one model; which of ours answers is said by the server's --default-*-model options (roles.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

from pairwire.foreign import tei_pb2

from ..clock import Clock
from ..config import ServerConfig
from ..engine.models.manifest import head_of
from ..engine.off_loop import off_loop
from ..engine.results import EmbedOptions, ModelInfo, ReadingOptions, ScoreOptions, SparseOptions
from ..errors import InvalidInput, Unsupported
from ..rpc import texts
from ..rpc.caller import caller
from ..rpc.method import AllTogether, Answer, EachAnswered, EngineSource, Headed, Method, Methods
from . import tei_codec as codec
from .fields import naming
from .roles import Role, Roles
from .tei_cost import Cost

SERVICES = tuple(f"tei.v1.{name}" for name in ("Info", "Embed", "Predict", "Rerank", "Tokenize"))


ROLES = {
    f"tei.{name}{suffix}": role
    for name, role in {
        "Info": Role.INFO,
        "Embed": Role.EMBED,
        "EmbedSparse": Role.SPARSE,
        "Predict": Role.PREDICT,
        "PredictPair": Role.PREDICT,
        "Rerank": Role.RERANK,
        "Tokenize": Role.INFO,
        "Decode": Role.INFO,
    }.items()
    for suffix in ("", "Stream")
}
"""What each method is for, by its name in metrics."""


def health_of(scorers: Sequence[bool], embedders: Sequence[bool]) -> dict[str, bool]:
    """Which services serve, by the health of the cross-encoders and of the other models."""
    scoring, embedding = bool(scorers) and all(scorers), bool(embedders) and all(embedders)
    return dict(zip(SERVICES, (True, embedding, scoring, scoring, True), strict=True))


class TeiServicer:
    """One of the services; `tei_servicers` makes them all."""

    def __init__(self, service: str, methods: Methods) -> None:
        self.service = service
        self.methods = methods


def tei_servicers(engine: EngineSource, roles: Roles, config: ServerConfig, clock: Clock) -> tuple[TeiServicer, ...]:
    """All services of tei.v1."""
    calls = _Calls(engine, roles, config, clock)
    together = AllTogether(tei_pb2.RerankStreamRequest, codec.join_stream)
    rerank = Method("RerankStream", tei_pb2.RerankRequest, calls.rerank, label="tei.RerankStream", stream=together)
    methods: tuple[Methods, ...] = (
        (_method("Info", tei_pb2.InfoRequest, calls.info),),
        (
            *_both("Embed", tei_pb2.EmbedRequest, calls.embed),
            *_both("EmbedSparse", tei_pb2.EmbedSparseRequest, calls.embed_sparse),
            *_both("EmbedAll", tei_pb2.EmbedAllRequest, calls.embed_all),
        ),
        (
            *_both("Predict", tei_pb2.PredictRequest, calls.predict),
            *_both("PredictPair", tei_pb2.PredictPairRequest, calls.predict_pair),
        ),
        (_method("Rerank", tei_pb2.RerankRequest, calls.rerank), rerank),
        (
            *_both("Tokenize", tei_pb2.EncodeRequest, calls.tokenize),
            *_both("Decode", tei_pb2.DecodeRequest, calls.decode),
        ),
    )
    return tuple(TeiServicer(service, own) for service, own in zip(SERVICES, methods, strict=True))


def _method(name: str, request_type: Any, call: Callable[[Any, float | None, bool], Awaitable[Answer]]) -> Method[Any]:
    return Method(name, request_type, call, label=f"tei.{name}")


def _both(name: str, request_type: Any, call: Callable[[Any, float | None, bool], Awaitable[Answer]]) -> Methods:
    """A method of one request, and the same as a stream."""
    streamed = Method(f"{name}Stream", request_type, call, label=f"tei.{name}Stream", stream=EachAnswered())
    return _method(name, request_type, call), streamed


class _Calls:
    """What the methods do: decode, one call of the engine, encode."""

    def __init__(self, engine: EngineSource, roles: Roles, config: ServerConfig, clock: Clock) -> None:
        self._engine = engine
        self._roles = roles
        self._config = config
        self._limits = config.limits
        self._now = clock.monotonic

    async def info(self, request: tei_pb2.InfoRequest, timeout_s: float | None, large: bool) -> tei_pb2.InfoResponse:
        """The model that ``--default-info-model`` chooses."""
        found, settings = self._roles.find(Role.INFO), self._config.engine
        variant = next((each for each in found.manifest.variants if each.name == found.variant), None)
        return tei_pb2.InfoResponse(
            version=version("pairwire"),
            model_id=found.name,
            model_sha=found.manifest.revision or None,
            model_dtype=_DTYPES.get(variant.precision, variant.precision) if variant else "float32",
            model_type=codec.model_type_of(found),
            max_concurrent_requests=self._config.connections.max_streams_per_connection,
            max_input_length=found.max_length,
            max_batch_tokens=settings.batch_token_limit(variant.batch_tokens if variant else 0),
            max_client_batch_size=self._limits.max_items,
            tokenization_workers=settings.text_thread_count(),
        )

    async def embed(self, request: tei_pb2.EmbedRequest, timeout_s: float | None, large: bool) -> Answer:
        """The vector of a text."""
        began, found = self._now(), self._roles.find(Role.EMBED)
        text = self._text(request.inputs)
        options = EmbedOptions(
            **_fields(codec.reading(request), codec.prompt_name_of(request)),
            normalize=request.normalize if request.HasField("normalize") else True,
            dimensions=request.dimensions if request.HasField("dimensions") else None,
        )
        with naming(texts="inputs"):
            result = await self._engine().embed([text], model=found.name, options=options, timeout_s=timeout_s)
        cost = Cost.of(found, len(text), self._now() - began, result.usage, result.timing)
        return Headed(codec.encode_vector(result, cost), cost.headers())

    async def embed_sparse(self, request: tei_pb2.EmbedSparseRequest, timeout_s: float | None, large: bool) -> Answer:
        """The weights of a text."""
        began, found = self._now(), self._roles.find(Role.SPARSE)
        text = self._text(request.inputs)
        options = SparseOptions(**_fields(codec.reading(request), codec.prompt_name_of(request)))
        with naming(texts="inputs"):
            result = await self._engine().embed_sparse([text], model=found.name, options=options, timeout_s=timeout_s)
        cost = Cost.of(found, len(text), self._now() - began, result.usage, result.timing)
        return Headed(codec.encode_sparse(result, cost), cost.headers())

    async def embed_all(self, request: tei_pb2.EmbedAllRequest, timeout_s: float | None, large: bool) -> Answer:
        """Nothing: see the sentence."""
        raise Unsupported(
            "a vector for each token cannot be had: packages hold graphs whose pooling is part of the graph, so that "
            "they give one vector a text; call Embed"
        )

    async def predict(self, request: tei_pb2.PredictRequest, timeout_s: float | None, large: bool) -> Answer:
        """Labels of a text."""
        began, found = self._now(), self._roles.find(Role.PREDICT)
        text = self._text(request.inputs)
        options = _scoring(found, codec.reading(request), raw_scores=request.raw_scores)
        with naming(texts="inputs"):
            result = await self._engine().score_texts([text], model=found.name, options=options, timeout_s=timeout_s)
        cost = Cost.of(found, len(text), self._now() - began, result.usage, result.timing)
        return Headed(codec.encode_labels(result, cost), cost.headers())

    async def predict_pair(self, request: tei_pb2.PredictPairRequest, timeout_s: float | None, large: bool) -> Answer:
        """Labels of a pair, or of a single text."""
        began, found, given = self._now(), self._roles.find(Role.PREDICT), list(request.inputs)
        if len(given) not in (1, 2):
            raise InvalidInput("inputs", f"{len(given)} texts; give one, or the two of a pair")
        if not any(given):
            raise InvalidInput("inputs", "empty; give text")
        for index, text in enumerate(given):
            texts.decode_text(f"inputs[{index}]", text, self._limits)
        options = _scoring(found, codec.reading(request), raw_scores=request.raw_scores)
        engine, model = self._engine(), found.name
        with naming(texts="inputs", pairs="inputs", first="inputs[0]", second="inputs[1]"):
            if len(given) == 1:
                result = await engine.score_texts(given, model=model, options=options, timeout_s=timeout_s)
            else:
                pair = [(given[0], given[1])]
                result = await engine.score(pair, model=model, options=options, timeout_s=timeout_s)
        cost = Cost.of(found, sum(map(len, given)), self._now() - began, result.usage, result.timing)
        return Headed(codec.encode_labels(result, cost), cost.headers())

    async def rerank(self, request: tei_pb2.RerankRequest, timeout_s: float | None, large: bool) -> Answer:
        """Documents by descending score."""
        began, found = self._now(), self._roles.find(Role.RERANK)
        options = _scoring(found, codec.reading(request), raw_scores=request.raw_scores)
        query, documents = await off_loop(large, self._documents, request)
        with naming(documents="texts"):
            result = await self._engine().rerank(
                query, documents, model=found.name, options=options, timeout_s=timeout_s
            )
        characters = len(query) * len(documents) + sum(map(len, documents))
        cost = Cost.of(found, characters, self._now() - began, result.usage, result.timing)
        shown = documents if request.return_text else None
        return Headed(await off_loop(large, codec.encode_ranks, result, cost, shown), cost.headers())

    async def tokenize(self, request: tei_pb2.EncodeRequest, timeout_s: float | None, large: bool) -> Answer:
        """The tokens of a text."""
        text, found = self._text(request.inputs), self._roles.find(Role.INFO)
        options = ReadingOptions(prompt_name=codec.prompt_name_of(request), caller=caller())
        with naming(texts="inputs"):
            (tokens,) = await self._engine().tokenize(
                [text],
                model=found.name,
                add_special_tokens=request.add_special_tokens,
                options=options,
                timeout_s=timeout_s,
            )
        return await off_loop(len(text) > _INLINE_CHARACTERS, codec.encode_tokens, tokens)

    async def decode(self, request: tei_pb2.DecodeRequest, timeout_s: float | None, large: bool) -> Answer:
        """The text that has these tokens."""
        if not request.ids:
            raise InvalidInput.empty("ids")
        ids = texts.decode_ids("ids", request.ids, self._limits)
        (text,) = await self._engine().decode(
            [ids],
            model=self._roles.name(Role.INFO),
            skip_special_tokens=request.skip_special_tokens,
            options=ReadingOptions(caller=caller()),
            timeout_s=timeout_s,
        )
        return tei_pb2.DecodeResponse(text=text)

    def _text(self, text: str) -> str:
        if not text:
            raise InvalidInput("inputs", "empty; give text")
        return texts.decode_text("inputs", text, self._limits)

    def _documents(self, request: tei_pb2.RerankRequest) -> tuple[str, list[str]]:
        query = texts.decode_text("query", request.query, self._limits)
        return query, texts.decode_texts("texts", request.texts, self._limits)


_DTYPES = {"fp32": "float32", "fp16": "float16"}
_INLINE_CHARACTERS = 4096
"""Of a text whose tokens are put into an answer on the event loop: some 1 ms."""


def _fields(options: ReadingOptions, prompt_name: str | None) -> dict[str, Any]:
    return {
        "truncation": options.truncation,
        "truncation_direction": options.truncation_direction,
        "caller": options.caller,
        "prompt_name": prompt_name,
    }


def _scoring(found: ModelInfo, options: ReadingOptions, *, raw_scores: bool) -> ScoreOptions:
    own = head_of(found.manifest).activation
    return ScoreOptions(**_fields(options, None), activation=codec.activation_for(found, own, raw_scores=raw_scores))
