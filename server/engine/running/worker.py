"""The threads that run batches, and the one lock that guards the scheduler.

A worker asks for a batch, runs it without the lock, writes its rows into their tickets' arrays and books it as done.
Workers that find no work wait on a condition and are woken by an admission; nobody polls.

When a model fails (`runner`), the tickets of its batch fail, the model counts as unhealthy, and it is tried on its
smallest bucket before its next batch, or after a while by a worker that is idle anyway. When a worker itself dies of
something unforeseen, or a run hangs and cannot be ended, the engine is over: every ticket fails, every later one is
refused, and the owner hears of it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from ...clock import Clock
from ...errors import DeadlineExceeded, EngineFault, NotReady, PairwireError
from ...runtime.base import Int32Array
from ..batching.admission import Objection
from ..batching.scheduler import Scheduler, SchedulerStatistics
from ..models.model import Model
from ..observer import BatchEvent, SafeObserver
from ..text.encoder import EncodedRows
from ..text.inputs import Texts
from ..watchdog import RunStuck, Watchdog
from .inflight import Ended, Inflight, TicketBatch
from .runner import Ran, Runner
from .score_cache import ScoreCache
from .ticket import Ticket, TicketRows, settle
from .written import Written

logger = logging.getLogger(__name__)

_UNHURRIED = 2.0
"""Stream a request only if its deadline leaves room for this many times its estimated work."""
_DEAD = "the engine has stopped after a fault of its own; restart the server"
_STUCK = "a run of a model hangs, so that the server has to be started again; try again later, or another server"
_STOPPING_S = 1.0
"""For running batches to end, once they have been asked to."""
_LATE = (
    "the deadline passed, or could not be met any more, while the request waited; allow more time or try another server"
)


class WorkerPool:
    """Runs what is submitted. ``submit``, ``cancel`` and the rest may be called from any thread."""

    def __init__(
        self,
        scheduler: Scheduler[TicketRows],
        models: Mapping[str, Model],
        *,
        scores: ScoreCache,
        workers: int,
        queue_tokens: int,
        clock: Clock,
        observer: SafeObserver,
        watchdog: Watchdog,
        probe_interval_s: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._models = dict(models)
        ladders = {name: model.ladder for name, model in models.items()}
        self._inflight = Inflight(scheduler, ladders, queue_tokens=queue_tokens)
        self._scores = scores
        self._clock = clock
        self._observer = observer
        self._watchdog = watchdog
        self._runner = Runner(watchdog)
        self._probe_interval_s = probe_interval_s
        self._on_fatal = on_fatal
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._released = threading.Condition(lock)  # apart, so that what is meant for an idle worker reaches one
        self._busy: Counter[str] = Counter()  # model -> workers that run it now
        self._unhealthy: dict[str, float] = {}  # model -> when it was last tried
        self._stopping = False
        self._fatal: BaseException | None = None
        self._alive = workers
        self._threads = [
            threading.Thread(target=self._work, name=f"pairwire-worker-{number}", daemon=True)
            for number in range(workers)
        ]
        watchdog.on_stuck(self._give_up)
        for thread in self._threads:
            thread.start()

    def add(self, model: Model) -> None:
        """A model comes, next to those that there are."""
        with self._changed:
            self._models[model.key] = model
            self._inflight.add(model.key, model.rules)

    def remove(self, model: Model) -> bool:
        """A model goes, for which nothing waits any more. Blocks as long as a batch of it runs, for nobody.

        False where the engine ends first: then the model is still in use, or will never be free.
        """
        with self._changed:
            self._released.wait_for(lambda: self._stopping or not self._busy[model.key])
            if self._stopping:
                return False
            self._inflight.remove(model.key)
            del self._models[model.key], self._busy[model.key]
            self._unhealthy.pop(model.key, None)
        return True

    @property
    def fatal(self) -> BaseException | None:
        """What a worker died of, if one did."""
        return self._fatal

    def reserve(self, ticket: Ticket, texts: Texts) -> bool:
        """Keeps room for all rows of a ticket, so that it may be submitted in parts and still be taken in whole.

        False, and nothing is kept, where that gains nothing (other work waits, or no worker is idle), where the room
        is not there, or where the deadline is so near that the whole of it should be looked at first.
        """
        model = self._models[ticket.model]
        likely = min(texts.most_tokens, 1 + texts.characters // texts.rows)  # text has fewer tokens than characters
        with self._changed:
            now = self._clock.monotonic()
            level = int(model.ladder.levels(np.array([likely], np.int32))[0])
            seconds = texts.rows * float(model.costs.row_seconds()[level]) / len(self._threads)
            if now + _UNHURRIED * seconds > ticket.deadline:
                return False
            return self._inflight.reserve(ticket, texts.rows, texts.most_tokens)

    @property
    def loaded(self) -> bool:
        """Whether anything waits; a guess, without the lock."""
        return self._inflight.waiting

    def expect(self, ticket: Ticket, rows: int, row_tokens: int) -> None:
        """Books room for the rows of a ticket, which are being read; refuses it before that costs anything.

        Raises:
            Overloaded, DeadlineExceeded: as ``submit``.
        """
        with self._changed:
            self._inflight.expect(ticket, rows, row_tokens, self._clock.monotonic())

    def expect_some(self, ticket: Ticket, rows: int, row_tokens: int) -> tuple[int, Objection | None]:
        """As ``expect``, of as many of the rows as may come in: their number, and what speaks against one more."""
        with self._changed:
            return self._inflight.expect_some(ticket, rows, row_tokens, self._clock.monotonic())

    def forgo(self, ticket: Ticket, rows: int) -> None:
        """This many rows of a partial ticket will not be submitted."""
        with self._changed:
            ended = self._inflight.forgo(ticket, rows)
        self._tell(ended)

    def submit(self, ticket: Ticket, encoded: EncodedRows, at: Int32Array) -> None:
        """Takes rows of a ticket in; row i is for row ``at[i]`` of its output. May be called again for more rows.

        The ticket's future is resolved when it has all its results, or has failed.

        Raises:
            InvalidInput, Overloaded, DeadlineExceeded: as ``Scheduler.admit``.
            NotReady: stopping.
            EngineFault: a worker has died.
        """
        rows = len(encoded)
        if self._scores:
            encoded, at = self._recall(ticket, encoded, at)
        with self._changed:
            self.check_serving()
            now = self._clock.monotonic()
            count = self._inflight.submit(ticket, encoded, at, now, known=rows - len(encoded))
            self._changed.notify(min(count, self._inflight.idle_workers))
            complete = not ticket.left
        if complete:  # the score cache knew what was missing
            settle([ticket])

    def cancel(self, ticket: Ticket) -> None:
        """Drops what waits of a ticket and disregards what runs of it."""
        with self._changed:
            ended = self._inflight.cancel(ticket, self._clock.monotonic())
            self._wake(ended)
        self._tell(ended)

    def statistics(self) -> tuple[SchedulerStatistics, frozenset[str]]:
        """A snapshot of the queue, and the keys of the models that are not healthy."""
        with self._changed:
            unhealthy = self._models if self._fatal else self._unhealthy
            return self._inflight.statistics(self._clock.monotonic()), frozenset(unhealthy)

    def shared_rows(self) -> Mapping[str, int]:
        """By model's key: rows so far that were answered with the result of an equal one in flight."""
        with self._changed:
            return self._inflight.shared_rows()

    def check_serving(self) -> None:
        """Raises what ``submit`` would raise for want of workers."""
        if isinstance(self._fatal, RunStuck):
            raise NotReady(_STUCK)
        if self._fatal is not None:
            raise EngineFault(_DEAD)
        if self._stopping:
            raise NotReady("the engine is closed")

    def stop(self, limit_s: float | None = None) -> bool:
        """Fails what waits, lets running batches end, and joins the threads. Blocks as long as a batch runs.

        What runs longer than ``limit_s`` is asked to end. False where a thread does not end: then nothing that it uses
        may be freed.
        """
        with self._changed:
            self._stopping = True
            dropped = self._inflight.cancel_all()
            self._changed.notify_all()
            self._released.notify_all()
        settle(dropped, NotReady.closed)
        if not self._join(limit_s):
            self._watchdog.interrupt_all()
            if not self._join(_STOPPING_S):
                return False
        self._watchdog.close()
        return True

    def _join(self, limit_s: float | None) -> bool:
        """Waits for the threads to end; False where they do not in time, or never will."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alive or isinstance(self._fatal, RunStuck), limit_s)
            if self._alive:
                return False
        for thread in self._threads:  # they are through, but for their last instructions
            thread.join()
        return True

    def _work(self) -> None:
        try:
            key = ""
            while (job := self._next(key)) is not None:
                key = _key_of(job)
                if isinstance(job, Model):
                    self._probe(job)
                else:
                    self._execute(job)
                del job  # what it holds may go while this thread waits
        except BaseException as error:
            self._die(error)
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()

    def _next(self, last: str) -> TicketBatch | Model | None:
        """The next batch, or a model that is due for a probe, or None when it is time to go.

        ``last`` is the key of the model that this worker has just done with, if any.
        """
        with self._changed:
            if last:
                self._busy[last] -= 1
                self._released.notify_all()
            job = self._awaited()
            if job is not None:
                self._busy[_key_of(job)] += 1
            return job

    def _awaited(self) -> TicketBatch | Model | None:
        """Under the lock, which it gives up while there is nothing to do."""
        while not self._stopping:
            now = self._clock.monotonic()
            batch, ended = self._inflight.next_batch(now)
            self._wake(ended)
            self._tell(ended)
            if batch is not None:
                return batch
            due = self._due_for_probe(now)
            if due is not None:
                return due
            self._changed.wait(self._probe_interval_s if self._unhealthy else None)
        return None

    def _due_for_probe(self, now: float) -> Model | None:
        for name, tried in self._unhealthy.items():
            if now - tried >= self._probe_interval_s:
                self._unhealthy[name] = now  # so that no second idle worker tries it too
                return self._models[name]
        return None

    def _execute(self, batch: TicketBatch) -> None:
        model = self._models[batch.model]
        rows = [(piece.queued.payload.encoded, row) for piece in batch.pieces for row in piece.rows.tolist()]
        try:
            if batch.model in self._unhealthy:
                self._runner.probe(model)
                self._set_health(model, healthy=True)
            ran = self._runner.run(model, rows, batch.bucket.length, batch.expected_s)
        except Exception as error:
            self._fail(batch, model, error)
            return
        results = Written(ran.values)
        end = 0
        for piece in batch.pieces:
            part, begin, end = piece.queued.payload, end, end + len(piece.rows)
            results.into(part.ticket, part.at[piece.rows], slice(begin, end))
        if self._scores:
            self._scores.put(model.graph_sha256, [encoded.rows[row] for encoded, row in rows], ran.values)
        ended_s = self._clock.monotonic()
        with self._changed:
            ended = self._inflight.complete(batch, results, ended_s, learn=ran.at_once)
            self._wake(ended)
        try:
            self._report(batch, ended_s)  # before the answers, so that who has one finds its batches counted
        finally:  # the tickets are out of anybody else's reach: nothing may come between them and their answer
            self._tell(ended)
            self._reject(ended, ran)

    def _probe(self, model: Model) -> None:
        """Tries a model that failed. What it raises it raised before: logged quietly, its health reports it."""
        try:
            self._runner.probe(model)
        except Exception:
            logger.debug("model %r still fails", model.name, exc_info=True)
        else:
            self._set_health(model, healthy=True)

    def _fail(self, batch: TicketBatch, model: Model, error: Exception) -> None:
        # The runtime's message names operators and shapes, never text; still it stays in the log.
        logger.error(
            "model %r failed on a batch of %d x %d", model.name, batch.bucket.rows, batch.bucket.length, exc_info=error
        )
        with self._changed:
            ended = self._inflight.fail(batch, self._clock.monotonic())
            self._wake(ended)
        try:
            self._set_health(model, healthy=False)
        finally:
            self._tell(ended, f"model {model.name!r} failed while it ran ({type(error).__name__}); try again later")

    @staticmethod
    def _reject(ended: Ended, ran: Ran) -> None:
        """Tells those whose own input made its run fail."""
        for ticket, at, row in ended.rejected:
            settle([ticket], functools.partial(ran.blamed[row].error, ticket.field, at))

    def _set_health(self, model: Model, *, healthy: bool) -> None:
        with self._changed:
            flipped = healthy == (model.key in self._unhealthy)
            if healthy:
                self._unhealthy.pop(model.key, None)
            else:
                self._unhealthy[model.key] = self._clock.monotonic()
                self._changed.notify()  # an idle worker that waits without limit must now wait for the probe
        if flipped:
            logger.warning("model %r is %s", model.name, "healthy again" if healthy else "unhealthy")
            self._observer.model_health(model.name, healthy)

    def _recall(self, ticket: Ticket, encoded: EncodedRows, at: Int32Array) -> tuple[EncodedRows, Int32Array]:
        """Writes what the score cache knows into the ticket; the other rows, and where they go."""
        known = self._scores.get(self._models[ticket.model].graph_sha256, encoded.rows)
        hits = [index for index, values in enumerate(known) if values is not None]
        if not hits:
            return encoded, at
        values = np.stack([values for values in known if values is not None])
        Written(values).into(ticket, at[hits], slice(None))
        misses = [index for index, values in enumerate(known) if values is None]
        return encoded.subset(misses), at[misses]

    def _wake(self, ended: Ended) -> None:
        """Under the lock: rows that were queued without a call of ``submit`` need workers too."""
        if ended.requeued:
            self._changed.notify(min(ended.requeued, self._inflight.idle_workers))

    def _tell(self, ended: Ended, failure: str = "") -> None:
        """Wakes those whose tickets have ended."""
        settle(ended.finished)
        settle(ended.failed, lambda: EngineFault(failure))
        settle(ended.expired, lambda: DeadlineExceeded(_LATE))
        for ticket, error in ended.refused:
            settle([ticket], functools.partial(_same, error))

    def _report(self, batch: TicketBatch, ended: float) -> None:
        self._observer.batch_finished(
            BatchEvent(
                model=self._models[batch.model].name,
                bucket=batch.bucket,
                rows=batch.rows,
                useful_tokens=batch.tokens,
                computed_tokens=batch.bucket.tokens,
                started_s=batch.started,
                seconds=ended - batch.started,
            )
        )

    def _give_up(self, stuck: RunStuck) -> None:
        """A worker is lost, and the CPU that it burns: the process has to end."""
        self._die(stuck)

    def _die(self, error: BaseException) -> None:
        """The end of the engine: nothing may hang, and the owner must know.

        Who only waits for what hangs may ask another server; who may be the reason for it should not.
        """
        with self._changed:
            first = self._fatal is None
            self._fatal = self._fatal or error
            self._stopping = True
            running = self._inflight.running()
            pending = self._inflight.cancel_all()
            self._changed.notify_all()
            self._released.notify_all()
        if not isinstance(error, RunStuck):
            logger.critical("a worker died; the engine stops", exc_info=error)
        waiting = [ticket for ticket in pending if isinstance(error, RunStuck) and ticket not in running]
        settle(waiting, lambda: NotReady(_STUCK))
        settle(set(pending).difference(waiting), lambda: EngineFault(_DEAD))
        if first:
            for model in list(self._models.values()):
                self._observer.model_health(model.name, False)
            self._on_fatal(error)
        if isinstance(error, RunStuck):  # only now: what hangs may be whoever reads the log
            logger.critical("the engine stops: %s", error)


def _key_of(job: TicketBatch | Model) -> str:
    return job.key if isinstance(job, Model) else job.model


def _same(error: PairwireError) -> PairwireError:
    return error
