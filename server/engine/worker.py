"""The threads that run batches, and the one lock that guards the scheduler.

A worker asks the scheduler for a batch, runs it without the lock, writes its rows into their requests' arrays and books
it as done. Workers that find no work wait on a condition and are woken by an admission; nobody polls.

When a run fails, its requests fail, the model counts as unhealthy, and it is tried on its smallest bucket before its
next batch, or after a while by a worker that is idle anyway. When a worker itself dies of something unforeseen, the
engine is over: every request fails, every later one is refused, and the owner is told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ..errors import DeadlineExceeded, EngineFault, NotReady
from ..runtime.base import Float32Array
from .clock import Clock
from .heads import activate
from .model import Model
from .observer import BatchEvent, SafeObserver
from .pool import Request
from .scheduler import Batch, Scheduler, SchedulerStatistics
from .ticket import Ticket, settle

logger = logging.getLogger(__name__)

_LATE = "the deadline passed while the request waited in the queue; allow more time or try another server"

TicketRequest = Request[Ticket]
TicketBatch = Batch[Ticket]


class WorkerPool:
    """Runs what is submitted. ``submit``, ``cancel`` and the rest may be called from any thread."""

    def __init__(
        self,
        scheduler: Scheduler[Ticket],
        models: Mapping[str, Model],
        *,
        workers: int,
        clock: Clock,
        observer: SafeObserver,
        probe_interval_s: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._scheduler = scheduler
        self._models = dict(models)
        self._clock = clock
        self._observer = observer
        self._probe_interval_s = probe_interval_s
        self._on_fatal = on_fatal
        self._changed = threading.Condition()
        self._unhealthy: dict[str, float] = {}  # model -> when it was last tried
        self._stopping = False
        self._fatal: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"pairwire-worker-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def fatal(self) -> BaseException | None:
        """What a worker died of, if one did."""
        return self._fatal

    def submit(self, request: TicketRequest) -> None:
        """Admits a request; its future is resolved when it is done or has failed.

        Raises:
            InvalidInput, Overloaded, DeadlineExceeded: as ``Scheduler.admit``.
            NotReady: stopping.
            EngineFault: a worker has died.
        """
        with self._changed:
            self.check_serving()
            self._scheduler.admit(request, self._clock.monotonic())
            self._changed.notify(min(request.waiting, self._scheduler.idle_workers))

    def cancel(self, request: TicketRequest) -> None:
        """Drops what waits of a request and disregards what runs of it."""
        with self._changed:
            self._scheduler.cancel(request)

    def statistics(self) -> tuple[SchedulerStatistics, frozenset[str]]:
        """A snapshot of the queue, and the names of the models that are not healthy."""
        with self._changed:
            unhealthy = self._models if self._fatal else self._unhealthy
            return self._scheduler.statistics(self._clock.monotonic()), frozenset(unhealthy)

    def check_serving(self) -> None:
        """Raises what ``submit`` would raise for want of workers."""
        if self._fatal is not None:
            raise EngineFault("the engine has stopped after a fault of its own; restart the server")
        if self._stopping:
            raise NotReady("the engine is closed")

    def stop(self) -> None:
        """Fails what waits, lets running batches end, and joins the threads. Blocks as long as a batch runs."""
        with self._changed:
            self._stopping = True
            dropped = self._scheduler.cancel_all()
            self._changed.notify_all()
        settle(dropped, lambda: NotReady("the engine was closed before the request was done; try another server"))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                if isinstance(job, Model):
                    self._probe(job)
                else:
                    self._execute(job)
        except BaseException as error:
            self._die(error)

    def _next(self) -> TicketBatch | Model | None:
        """The next batch, or a model that is due for a probe, or None when it is time to go."""
        with self._changed:
            while not self._stopping:
                now = self._clock.monotonic()
                decision = self._scheduler.next_batch(now)
                if decision.expired:
                    settle(decision.expired, lambda: DeadlineExceeded(_LATE))
                if decision.batch is not None:
                    return decision.batch
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
        rows = [(piece.request.payload.encoded, row) for piece in batch.pieces for row in piece.rows.tolist()]
        try:
            if batch.model in self._unhealthy:
                model.probe()
                self._set_health(model, healthy=True)
            values = model.run(rows, batch.bucket.length)
        except Exception as error:
            self._fail(batch, model, error)
            return
        broken = self._write(batch, values)
        ended = self._clock.monotonic()
        with self._changed:
            for request in broken:
                self._scheduler.cancel(request)
            finished = self._scheduler.complete(batch, ended)
        self._report(batch, ended)  # before the answers, so that who has one finds its batches counted
        settle(finished)
        if broken:
            logger.error("model %r gave values that are not finite for %d requests", model.name, len(broken))
            settle(broken, lambda: EngineFault(f"model {model.name!r} gave a value that is not a finite number"))

    def _probe(self, model: Model) -> None:
        """Tries a model that failed. What it raises is what it raised before: logged quietly, told by its health."""
        try:
            model.probe()
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
            failed = self._scheduler.fail(batch)
        self._set_health(model, healthy=False)
        reason = f"model {model.name!r} failed while it ran ({type(error).__name__}); try again later"
        settle(failed, lambda: EngineFault(reason))

    def _set_health(self, model: Model, *, healthy: bool) -> None:
        with self._changed:
            flipped = healthy == (model.name in self._unhealthy)
            if healthy:
                self._unhealthy.pop(model.name, None)
            else:
                self._unhealthy[model.name] = self._clock.monotonic()
                self._changed.notify()  # an idle worker that waits without limit must now wait for the probe
        if flipped:
            logger.warning("model %r is %s", model.name, "healthy again" if healthy else "unhealthy")
            self._observer.model_health(model.name, healthy)

    def _write(self, batch: TicketBatch, values: Float32Array) -> list[TicketRequest]:
        """Writes scores or vectors into the requests' arrays; returns the requests that got something not finite."""
        finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
        broken = []
        activated = {}
        at = 0
        for piece in batch.pieces:
            ticket = piece.request.payload
            if ticket.activation not in activated:
                activated[ticket.activation] = activate(values, ticket.activation)
            end = at + len(piece.rows)
            ticket.output[piece.rows] = activated[ticket.activation][at:end]
            if not finite[at:end].all():
                broken.append(piece.request)
            at = end
        return broken

    def _report(self, batch: TicketBatch, ended: float) -> None:
        self._observer.batch_finished(
            BatchEvent(
                model=batch.model,
                bucket=batch.bucket,
                rows=batch.rows,
                useful_tokens=batch.tokens,
                computed_tokens=batch.bucket.tokens,
                started_s=batch.started,
                seconds=ended - batch.started,
            )
        )

    def _die(self, error: BaseException) -> None:
        """The end of the engine: nothing may hang, and the owner must know."""
        with self._changed:
            first = self._fatal is None
            self._fatal = self._fatal or error
            self._stopping = True
            pending = self._scheduler.cancel_all()
            self._changed.notify_all()
        logger.critical("a worker died; the engine stops", exc_info=error)
        settle(pending, lambda: EngineFault("the engine stopped after a fault of its own; restart the server"))
        if first:
            for name in self._models:
                self._observer.model_health(name, False)
            self._on_fatal(error)
