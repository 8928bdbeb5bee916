"""The one public class: several models, one queue, one pool of workers, behind three coroutines."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from ..errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
)
from ..runtime.base import Float32Array
from .catalog import Catalog
from .clock import Clock, SystemClock
from .config import EngineConfig
from .heads import Activation
from .loading import load_model
from .model import Model
from .observer import Observer, Outcome, RequestEvent, SafeObserver
from .planner import OptimalCover, Planner
from .pool import Request, make_request
from .priority import Priority
from .results import (
    EmbedOptions,
    EmbedResult,
    EngineStatistics,
    ModelInfo,
    ModelKind,
    ModelStatistics,
    ScoreOptions,
    ScoreResult,
    Timing,
    Usage,
)
from .scheduler import Lane, Scheduler
from .text import EncodedRows
from .ticket import Ticket
from .worker import WorkerPool

logger = logging.getLogger(__name__)

INLINE_CHARACTERS = 512
"""Texts up to so many characters together are tokenised on the event loop. They hold it up for some 0.2 ms; a hop to a
thread and back would cost some 0.06 ms more (one Zen 4 core)."""

_CHARACTERS_PER_TOKEN = 8
"""More than any language has on average: text within the bound is refused by its tokens, never by its characters."""

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (InvalidInput, Outcome.INVALID),
    (Overloaded, Outcome.OVERLOADED),
    (DeadlineExceeded, Outcome.DEADLINE),
    (NotReady, Outcome.NOT_READY),
    (asyncio.CancelledError, Outcome.CANCELLED),
)


@dataclasses.dataclass(slots=True)
class _Call:
    """One call on its way through the engine."""

    model: Model
    field: str
    rows: int
    characters: int
    encode: Callable[[], EncodedRows]
    activation: Activation
    priority: Priority
    timeout_s: float | None
    tokenize_s: float = 0.0
    request: Request[Ticket] | None = None
    output: Float32Array = dataclasses.field(default_factory=lambda: np.empty((0, 0), np.float32))


class Engine:
    """Scores pairs and embeds texts. Its coroutines belong to one event loop; ``statistics`` may be called anywhere.

    Give each ``close`` one ``open``, or use it as ``async with await Engine.open(...) as engine``.
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        planner: Planner | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        """An engine over models that are loaded already; starts its threads.

        ``on_fatal`` is called once, from a dying worker's thread, when the engine can serve nothing any more.

        Raises:
            ConfigInvalid: no model, or two of one name.
        """
        self._config = config or EngineConfig()
        self._clock = clock or SystemClock()
        self._observer = SafeObserver(observer)
        self._catalog = Catalog(models)
        workers = self._config.worker_count()
        self.models: Mapping[str, ModelInfo] = MappingProxyType(
            {name: model.info(workers) for name, model in self._catalog.models.items()}
        )
        """The loaded models by name."""
        self._text = ThreadPoolExecutor(self._config.text_thread_count(), thread_name_prefix="pairwire-text")
        self._text_characters = 0
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._closed = False
        self._workers = WorkerPool(
            Scheduler(
                {name: Lane(model.ladder, model.costs) for name, model in self._catalog.models.items()},
                planner or OptimalCover(),
                workers=workers,
                queue_tokens=self._config.queue_tokens,
            ),
            self._catalog.models,
            workers=workers,
            clock=self._clock,
            observer=self._observer,
            probe_interval_s=self._config.probe_interval_s,
            on_fatal=on_fatal or (lambda error: None),
        )

    @classmethod
    async def open(
        cls,
        *packages: Path | str,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> Self:
        """Loads, verifies and warms model packages, one after the other, and starts serving.

        Raises:
            PackageInvalid: a package is missing, damaged, too new, or its graph does not run.
            ConfigInvalid: no package, or two models of one name.
            RuntimeMissing: neither or both onnxruntime wheels are installed.
        """
        settings = config or EngineConfig()
        models: list[Model] = []
        try:
            for package in packages:
                models.append(await asyncio.to_thread(load_model, package, settings))
            return cls(models, config=settings, clock=clock, observer=observer, on_fatal=on_fatal)
        except BaseException:
            for model in models:
                model.runtime.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores of pairs of texts, in input order.

        ``model`` may be empty where exactly one cross-encoder is loaded. ``timeout_s`` counts from now until the
        answer; None waits as long as it takes.

        Raises:
            InvalidInput: no pairs, a text that is not valid Unicode or does not fit, more than the whole queue holds.
            ModelNotFound, WrongModelKind: see the message.
            Overloaded: the queue has no room now.
            DeadlineExceeded: it took, or would take, longer than ``timeout_s``.
            NotReady: draining or closed.
            EngineFault: the runtime failed.
        """
        options = options or ScoreOptions()
        loaded = self._catalog.resolve(model, ModelKind.CROSS_ENCODER)
        firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
        encode = functools.partial(
            loaded.encoder.encode_pairs,
            firsts,
            seconds,
            max_length=options.max_length,
            truncation=options.truncation,
        )
        return await self._score(loaded, "pairs", firsts, seconds, encode, options, timeout_s)

    async def score_documents(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores of (query, document) for each document, in input order; the query is tokenised once.

        Arguments and errors as ``score``; errors name ``query`` and ``documents[i]``.
        """
        options = options or ScoreOptions()
        loaded = self._catalog.resolve(model, ModelKind.CROSS_ENCODER)
        encode = functools.partial(
            loaded.encoder.encode_pairs,
            [query],
            documents,
            max_length=options.max_length,
            truncation=options.truncation,
            fields=("query", "documents[{}]"),
        )
        return await self._score(loaded, "documents", [query], documents, encode, options, timeout_s)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        options: EmbedOptions | None = None,
        timeout_s: float | None = None,
    ) -> EmbedResult:
        """Vectors of texts, in input order, with the checkpoint's own pooling and normalisation.

        Arguments and errors as ``score``; an unknown ``prompt_name`` is InvalidInput and lists the known ones.
        """
        options = options or EmbedOptions()
        loaded = self._catalog.resolve(model, ModelKind.BI_ENCODER)
        prompt = loaded.prompt(options.prompt_name)
        encode = functools.partial(
            loaded.encoder.encode_texts,
            texts,
            prompt=prompt,
            max_length=options.max_length,
            truncation=options.truncation,
        )
        call = _Call(
            model=loaded,
            field="texts",
            rows=len(texts),
            characters=_characters(texts) + len(prompt) * len(texts),
            encode=encode,
            activation=Activation.IDENTITY,
            priority=options.priority,
            timeout_s=timeout_s,
        )
        usage, timing = await self._serve(call)
        return EmbedResult(embeddings=call.output, model=loaded.name, usage=usage, timing=timing)

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        queue, unhealthy = self._workers.statistics()
        return EngineStatistics(
            workers=self._config.worker_count(),
            queued_rows=queue.queued_rows,
            queued_tokens=queue.queued_tokens,
            queue_limit_tokens=self._config.queue_tokens,
            running_rows=queue.running_rows,
            running_batches=queue.running_batches,
            open_requests=self._calls,
            estimated_wait_s=queue.estimated_wait_s,
            draining=self._draining,
            failed=self._workers.fatal is not None,
            models={
                name: ModelStatistics(
                    healthy=name not in unhealthy,
                    queued_rows=lane.queued_rows,
                    queued_tokens=lane.queued_tokens,
                    running_rows=lane.running_rows,
                )
                for name, lane in queue.lanes.items()
            },
        )

    async def drain(self) -> None:
        """Refuses new work with NotReady; returns when all accepted work is answered. May be called more than once."""
        self._draining = True
        await self._idle.wait()

    async def close(self) -> None:
        """Waiting work fails with NotReady, running batches end, threads and graphs are freed. Idempotent."""
        if self._closed:
            return
        self._closed = self._draining = True
        await asyncio.to_thread(self._workers.stop)
        await self._idle.wait()  # calls that are being tokenised find the workers gone
        self._text.shutdown(wait=False)
        for model in self._catalog.models.values():
            model.runtime.close()

    async def _score(
        self,
        model: Model,
        field: str,
        firsts: Sequence[str],
        seconds: Sequence[str],
        encode: Callable[[], EncodedRows],
        options: ScoreOptions,
        timeout_s: float | None,
    ) -> ScoreResult:
        call = _Call(
            model=model,
            field=field,
            rows=len(seconds),
            characters=_characters(firsts) + _characters(seconds),
            encode=encode,
            activation=options.activation or model.activation,
            priority=options.priority,
            timeout_s=timeout_s,
        )
        usage, timing = await self._serve(call)
        return ScoreResult(scores=call.output, labels=model.labels, model=model.name, usage=usage, timing=timing)

    async def _serve(self, call: _Call) -> tuple[Usage, Timing]:
        """Takes a call through the engine, keeps count of it, and tells the observer how it ended."""
        self._calls += 1
        self._idle.clear()
        outcome = Outcome.FAULT
        try:
            result = await self._within_deadline(call)
            outcome = Outcome.OK
        except BaseException as error:
            outcome = next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), outcome)
            raise
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()
            self._observer.request_finished(_event(call, outcome))
        return result

    async def _within_deadline(self, call: _Call) -> tuple[Usage, Timing]:
        if self._draining:
            raise NotReady("the engine is draining and takes no new work; try another server")
        if not call.rows:
            raise InvalidInput(call.field, "empty; give at least one")
        if call.timeout_s is None:
            return await self._run(call, math.inf)
        if not call.timeout_s > 0:
            raise DeadlineExceeded(f"timeout_s: {call.timeout_s} leaves no time; allow more")
        deadline = self._clock.monotonic() + call.timeout_s
        try:
            async with asyncio.timeout(call.timeout_s):
                return await self._run(call, deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"not done within {call.timeout_s:.3f} s; allow more time or send less") from None

    async def _run(self, call: _Call, deadline: float) -> tuple[Usage, Timing]:
        self._workers.check_serving()
        encoded = await self._tokenize(call)
        call.output = np.empty((len(encoded), call.model.outputs), np.float32)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = Ticket(encoded, call.activation, call.output, done)
        request = make_request(
            call.model.ladder,
            call.model.name,
            encoded.lengths,
            ticket,
            deadline=deadline,
            priority=call.priority,
            field=call.field,
        )
        call.request = request
        self._workers.submit(request)
        try:
            await done
        except asyncio.CancelledError:
            self._workers.cancel(request)
            raise
        usage = Usage(request.tokens, request.padded_tokens, tuple(encoded.truncated.tolist()))
        return usage, _timing(call)

    async def _tokenize(self, call: _Call) -> EncodedRows:
        started = self._clock.monotonic()
        if call.characters <= INLINE_CHARACTERS:
            encoded = call.encode()
        else:
            self._check_backlog(call)
            self._text_characters += call.characters
            try:
                encoded = await asyncio.get_running_loop().run_in_executor(self._text, call.encode)
            finally:
                self._text_characters -= call.characters
        call.tokenize_s = self._clock.monotonic() - started
        return encoded

    def _check_backlog(self, call: _Call) -> None:
        """The queue is bounded in tokens, and before they are counted, text is bounded too."""
        limit = _CHARACTERS_PER_TOKEN * self._config.queue_tokens
        if self._text_characters and self._text_characters + call.characters > limit:
            retry_after_s = self.statistics().estimated_wait_s
            raise Overloaded(
                f"{self._text_characters} characters wait to be tokenised, at most {limit} may; "
                f"try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )


def _characters(texts: Sequence[str]) -> int:
    try:
        return sum(map(len, texts))
    except TypeError:  # not text: the tokenizer's stage will say which
        return 0


def _timing(call: _Call) -> Timing:
    request = call.request
    if request is None or math.isnan(request.started):
        return Timing(0.0, call.tokenize_s, 0.0)
    compute_s = 0.0 if math.isnan(request.finished) else request.finished - request.started
    return Timing(request.started - request.arrival, call.tokenize_s, compute_s)


def _event(call: _Call, outcome: Outcome) -> RequestEvent:
    timing = _timing(call)
    return RequestEvent(
        model=call.model.name,
        kind=call.model.kind,
        rows=call.rows,
        tokens=call.request.tokens if call.request else 0,
        outcome=outcome,
        queue_s=timing.queue_s,
        tokenize_s=timing.tokenize_s,
        compute_s=timing.compute_s,
    )
