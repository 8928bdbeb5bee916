"""One call on its way through the engine: tokenised, submitted, awaited; and what is reported of it afterwards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ..clock import Clock
from ..errors import DeadlineExceeded, InvalidInput, NotReady, Overloaded, WrongModelKind
from ..runtime.base import Float32Array, Int32Array
from .anytime import Anytime, answer_after
from .batching.priority import Priority
from .cache import ByteCache
from .models.model import Model
from .observer import Outcome, RequestEvent, SafeObserver
from .off_loop import off_loop
from .outputs.heads import Head
from .outputs.vectors import INLINE_BYTES, check_dimensions, shape_vectors
from .results import (
    EmbedOptions,
    EmbedResult,
    ReadingOptions,
    ScoreOptions,
    ScoreResult,
    Timing,
    Unscored,
    Usage,
)
from .running.ticket import Ticket
from .running.worker import WorkerPool
from .text.encoder import EncodedRows, TextEncoder, join
from .text.given import listed, unzipped
from .text.inputs import PairTexts, SingleTexts, Texts
from .text.stage import INLINE_CHARACTERS, TextStage
from .text.token_ids import Text

_TOKEN_CHARACTERS = 4.0
"""Of a token, special ones included, until some text of a model has been read."""
_LEAST_TOKEN_CHARACTERS = 0.5
_EARLY_S = 0.02
"""gRPC cancels what is late, some milliseconds early."""
_LEARNT = 0.1
"""Weight of the newest call in what is known of a model's text."""

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (InvalidInput, Outcome.INVALID),
    (Overloaded, Outcome.OVERLOADED),
    (DeadlineExceeded, Outcome.DEADLINE),
    (NotReady, Outcome.NOT_READY),
    (asyncio.CancelledError, Outcome.CANCELLED),
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs as they were given: ``zip(firsts, seconds)``; a single first is one query with many documents."""

    field: str
    """What the caller calls them, for error messages."""
    firsts: Sequence[Text]
    seconds: Sequence[Text]
    fields: tuple[str, str]
    """What the caller calls a first and a second text, with a place for the index."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Text, Text]]) -> Pairs:
        """Pairs of texts.

        Raises:
            InvalidInput: something else.
        """
        firsts, seconds = unzipped("pairs", pairs)
        return cls("pairs", firsts, seconds, ("pairs[{}].first", "pairs[{}].second"))

    @classmethod
    def of_documents(cls, query: Text, documents: Sequence[Text]) -> Pairs:
        """(query, document) for each document.

        Raises:
            InvalidInput: the documents are not several things in an order.
        """
        return cls("documents", [query], listed("documents", documents), ("query", "documents[{}]"))


@dataclass(slots=True)
class Call:
    """What was asked, and how far it has come."""

    model: Model
    what: str
    """What the caller calls its rows, for error messages."""
    texts: Texts
    head: Head
    priority: Priority
    caller: str
    timeout_s: float | None
    tokenize_s: float = 0.0
    encoded: int = 0
    """Rows that have been tokenised."""
    tokens: int = 0
    truncated: list[int] = field(default_factory=list)
    ticket: Ticket | None = None
    partial: bool = False
    """A result of some rows will do."""
    unscored: Unscored | None = None
    """What a partial result lacks."""

    def note_encoded(self, rows: EncodedRows, seconds: float) -> Int32Array:
        """Books its next rows as tokenised, ``seconds`` after it came; their places among all its rows."""
        if not self.encoded:
            self.tokenize_s = seconds
        begin = self.encoded
        self.truncated += (rows.truncated + begin).tolist()
        self.tokens += rows.tokens
        self.encoded += len(rows)
        return np.arange(begin, self.encoded, dtype=np.int32)

    @property
    def usage(self) -> Usage:
        """What it cost, once it is done."""
        padded = self.ticket.padded_tokens if self.ticket else 0
        return Usage(self.tokens, padded, tuple(self.truncated))

    @property
    def timing(self) -> Timing:
        """Where its time went so far."""
        ticket = self.ticket
        if ticket is None or math.isnan(ticket.started):
            return Timing(0.0, self.tokenize_s, 0.0)
        return Timing(ticket.started - ticket.arrival, self.tokenize_s, ticket.finished - ticket.started)

    def event(self, error: BaseException | None, now: float) -> RequestEvent:
        """For the observer, when it has ended, with or without an error."""
        timing = self.timing
        if isinstance(error, asyncio.CancelledError) and self.ticket and now > self.ticket.deadline - _EARLY_S:
            error = DeadlineExceeded("it was cancelled because its time was over")  # gRPC does that
        return RequestEvent(
            model=self.model.name,
            kind=self.model.kind,
            rows=self.texts.rows,
            tokens=self.tokens,
            outcome=_outcome(error),
            queue_s=timing.queue_s,
            tokenize_s=timing.tokenize_s,
            compute_s=timing.compute_s,
            unscored=0 if self.unscored is None else len(self.unscored.indices),
            caller=self.caller,
            refused=isinstance(error, DeadlineExceeded) and error.retry_after_s is not None,
        )


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.OK
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), Outcome.FAULT)


T = TypeVar("T")
Work = Callable[["Call", float], Awaitable[T]]
"""What is done for a call until its deadline."""
Accept = Callable[[], AbstractContextManager[None]]
"""Opens a request for as long as it is served; raises NotReady instead."""


class Calls:
    """Takes calls through text, batching and running. Knows models, not their names. Belongs to one event loop."""

    def __init__(
        self,
        stage: TextStage,
        workers: WorkerPool,
        *,
        token_caches: Mapping[str, ByteCache],
        clock: Clock,
        observer: SafeObserver,
        default_timeout_s: float | None = None,
    ) -> None:
        """``token_caches`` by model; ``default_timeout_s`` is for calls that come without one."""
        self._default_timeout_s = default_timeout_s
        self._late_s = 0.0  # of partial answers, lately at most
        self._token_characters: dict[str, float] = {}  # by model, on average and lately
        self._stage = stage
        self._workers = workers
        self._tokens = token_caches
        self._clock = clock
        self._observer = observer

    def timeout_of(self, timeout_s: float | None) -> float | None:
        """The time that a call has, which may have been given none."""
        return self._default_timeout_s if timeout_s is None else timeout_s

    async def score(
        self,
        model: Model,
        pairs: Pairs,
        options: ScoreOptions,
        timeout_s: float | None,
        accept: Accept = nullcontext,
        *,
        partial: bool = False,
    ) -> ScoreResult:
        """Scores of pairs in input order; see ``Engine.score``, and ``Engine.rerank`` for ``partial`` ones."""
        given = PairTexts(
            encoder=model.encoder,
            cache=self._tokens[model.name],
            firsts=pairs.firsts,
            seconds=pairs.seconds,
            prompt=model.prompt(options.prompt_name, options.prompt),
            fields=pairs.fields,
            max_length=options.max_length,
            truncation=options.truncation,
            direction=options.truncation_direction,
        )
        call = Call(
            model,
            pairs.field,
            given,
            model.head.with_activation(options.activation),
            options.priority,
            options.caller,
            timeout_s,
            partial=partial,
        )
        scores = await self.serve(call, accept)
        return ScoreResult(
            scores=scores,
            labels=model.labels,
            model=model.name,
            usage=call.usage,
            timing=call.timing,
            unscored=call.unscored,
        )

    async def embed(
        self,
        model: Model,
        texts: Sequence[Text],
        options: EmbedOptions,
        timeout_s: float | None,
        accept: Accept = nullcontext,
    ) -> EmbedResult:
        """Vectors of texts in input order; see ``Engine.embed``."""
        check_dimensions(options.dimensions, model.outputs)
        call = self.reading(model, texts, options, timeout_s)
        dimensions = options.dimensions or model.default_dimensions or None
        whole = await self.serve(call, accept)
        vectors = await off_loop(whole.nbytes > INLINE_BYTES, shape_vectors, whole, dimensions, options.normalize)
        return EmbedResult(embeddings=vectors, model=model.name, usage=call.usage, timing=call.timing)

    async def score_texts(
        self,
        model: Model,
        texts: Sequence[Text],
        options: ScoreOptions,
        timeout_s: float | None,
        accept: Accept = nullcontext,
    ) -> ScoreResult:
        """Scores of single texts in input order; see ``Engine.score_texts``."""
        if model.encoder.rules.template is not None:
            raise WrongModelKind(
                f"model {model.name!r} makes one text of a pair by its template and reads no single texts; send pairs"
            )
        call = self.reading(model, texts, options, timeout_s)
        call.head = model.head.with_activation(options.activation)
        scores = await self.serve(call, accept)
        return ScoreResult(scores=scores, labels=model.labels, model=model.name, usage=call.usage, timing=call.timing)

    def reading(
        self,
        model: Model,
        texts: Sequence[Text],
        options: ReadingOptions,
        timeout_s: float | None,
        encoder: TextEncoder | None = None,
    ) -> Call:
        """A call that gives one row of numbers for each text; by another ``encoder`` than the model's, if there is one.

        The model's ids of texts are kept; another's are not.
        """
        given = SingleTexts(
            encoder=encoder or model.encoder,
            cache=self._tokens[model.name] if encoder is None else ByteCache(0),
            texts=texts,
            prompt=model.prompt(options.prompt_name, options.prompt),
            max_length=options.max_length,
            truncation=options.truncation,
            direction=options.truncation_direction,
        )
        return Call(model, "texts", given, Head(), options.priority, options.caller, timeout_s)

    async def serve(self, call: Call, accept: Accept = nullcontext) -> Float32Array:
        """[rows, outputs] float32 of a call; the observer hears how it ended, also where ``accept`` refuses it."""
        return await self._observed(call, accept, self._run)

    async def read(self, call: Call, accept: Accept = nullcontext) -> EncodedRows:
        """The rows of a call that no graph is to read; the observer hears how it ended, as of any other."""
        return await self._observed(call, accept, self._read)

    async def _observed(self, call: Call, accept: Accept, work: Work[T]) -> T:
        failure: BaseException | None = None
        try:
            with accept():
                return await self._within_deadline(call, work)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._observer.request_finished(call.event(failure, self._clock.monotonic()))
            failure = None  # a frame that holds the exception that holds the frame would be a ring

    async def _within_deadline(self, call: Call, work: Work[T]) -> T:
        if not call.texts.rows:
            raise InvalidInput.empty(call.what)
        call.timeout_s = self.timeout_of(call.timeout_s)
        if call.timeout_s is None:
            return await work(call, math.inf)
        if not call.timeout_s > 0:
            raise DeadlineExceeded(f"timeout_s: {call.timeout_s} leaves no time; allow more")
        if call.partial:
            return await work(call, self._clock.monotonic() + answer_after(call.timeout_s, self._late_s))
        deadline = self._clock.monotonic() + call.timeout_s
        try:
            async with asyncio.timeout(call.timeout_s):
                return await work(call, deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"not done within {call.timeout_s:.3f} s; allow more time or send less") from None

    async def _run(self, call: Call, deadline: float) -> Float32Array:
        self._workers.check_serving()
        ticket = call.ticket = Ticket(
            model=call.model.name,
            field=call.what,
            head=call.head,
            output=np.empty((call.texts.rows, call.model.outputs), np.float32),
            done=asyncio.get_running_loop().create_future(),
            deadline=deadline,
            priority=call.priority,
            caller=call.caller,
            partial=call.partial,
        )
        if call.partial:
            return await self._run_partial(call, ticket)
        if self._workers.loaded or call.texts.characters > INLINE_CHARACTERS:
            self._workers.expect(ticket, call.texts.rows, self._likely_tokens(call))
        stream = self._stage.may_stream(call.texts) and self._workers.reserve(ticket, call.texts)
        started = self._clock.monotonic()
        try:
            async with aclosing(self._stage.encode(call.texts, stream=stream, caller=call.caller)) as slices:
                async for rows in slices:
                    at = call.note_encoded(rows, self._clock.monotonic() - started)
                    self._workers.submit(ticket, rows, at)
            self._learn(call)
            await ticket.done
        except BaseException:
            self._workers.cancel(ticket)
            ticket.abandon()
            raise
        return ticket.output

    async def _read(self, call: Call, deadline: float) -> EncodedRows:
        self._workers.check_serving()
        started, pieces = self._clock.monotonic(), list[EncodedRows]()
        async with aclosing(self._stage.encode(call.texts, caller=call.caller)) as slices:
            async for rows in slices:
                call.note_encoded(rows, self._clock.monotonic() - started)
                pieces.append(rows)
        return join(pieces)

    async def _run_partial(self, call: Call, ticket: Ticket) -> Float32Array:
        assert isinstance(call.texts, PairTexts)  # only they are ranked
        work = Anytime(
            call.texts,
            ticket,
            self._stage,
            self._workers,
            self._clock,
            row_tokens=self._likely_tokens(call),
            note_encoded=call.note_encoded,
        )
        scores = await work.run()
        call.unscored = work.unscored
        self._late_s = max(work.late_s, (1 - _LEARNT) * self._late_s)
        self._learn(call)
        return scores

    def _likely_tokens(self, call: Call) -> int:
        """Of a row of a call that has not been read yet, special tokens included."""
        likely = call.texts.row_characters / self._token_characters.get(call.model.name, _TOKEN_CHARACTERS)
        return max(1, min(call.texts.most_tokens, round(likely)))

    def _learn(self, call: Call) -> None:
        """How many characters a token has, from a call that has been read and was not cut."""
        if not call.truncated and call.tokens and call.encoded == call.texts.rows:
            found = call.texts.row_characters * call.texts.rows / call.tokens
            known = self._token_characters.get(call.model.name, found)
            self._token_characters[call.model.name] = max(_LEAST_TOKEN_CHARACTERS, known + _LEARNT * (found - known))
