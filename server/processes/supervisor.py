"""Starts several servers on one port, restarts what dies, drains them together, and shows the sum of their metrics."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Coroutine

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from ..banner import serving_line
from ..clock import Clock, SystemClock
from ..config import HTTP_OFF, METRICS_OFF, ListenConfig, ServerConfig
from ..endpoint import MetricsEndpoint
from ..errors import StartupError
from ..eventloop import EXIT_LOST, catch_signals, leave
from ..security.guard import Guard
from .backoff import BackOff
from .child import STACKS, Child, Stage
from .messages import Order, Spec
from .port import ReservedPort
from .shares import divide
from .totals import Families, Reading, add_up, lasting, parse, shown

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
"""How often a sign of life, and with it the metrics, is asked for: what a process counted after the last one before it
was killed is lost."""

SCRAPE_WAIT_S = 1.0
"""How long a scrape waits for fresh metrics before it takes the last ones."""

_SCRAPE_LIMIT_S = 10.0

_LAST_WORDS_S = 15.0
"""What a drain may take beyond its own limits before a process is killed."""


class Supervisor:
    """The parent of ``config.scaling.processes`` servers; ``run`` is its whole life."""

    def __init__(self, config: ServerConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._specs: list[Spec] = []
        self._children: list[Child] = []
        self._retired: Families = ()
        self._restarts = 0
        self._guard = Guard(config)
        self._reloading: asyncio.Task[None] | None = None
        self._own = ProcessCollector(registry=None)  # the supervisor's memory and CPU count too

    async def run(self, show: Callable[[str], None]) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit code. ``show`` gets the lines for stdout, once all serve.

        Raises:
            StartupError: an option cannot work, or a process cannot start.
        """
        config, where = self._config, self._config.listen
        config.check_models()
        shares = divide(config.scaling.processes)
        stop = asyncio.Event()
        catch_signals(stop, on_second=self._leave_at_once, on_hangup=self._reload)
        with contextlib.ExitStack() as reserved:
            listen = self._reserve(reserved)
            own = dataclasses.replace(config, listen=listen)
            self._specs = [Spec(number=at, share=share, config=own) for at, share in enumerate(shares)]
            endpoint = self._open_endpoint()
            metrics_port = None if endpoint is None else endpoint.port
            try:
                line = serving_line(where.host, listen.port, metrics_port, listen.bound_http_port())
                return await self._supervise(stop, line, show)
            finally:
                for child in self._children:
                    child.kill()
                for child in self._children:
                    await child.reach(Stage.ENDED)
                self._guard.close()
                if endpoint is not None:
                    await asyncio.to_thread(endpoint.close)

    def _reserve(self, held: contextlib.ExitStack) -> ListenConfig:
        """Where each process listens, on ports that are held until the end."""
        where = self._config.listen
        port = held.enter_context(ReservedPort(where.host, where.port)).port
        http_port = where.http_port
        if http_port != HTTP_OFF:
            http_port = held.enter_context(ReservedPort(where.host, http_port, option="http_port")).port
        return dataclasses.replace(where, port=port, http_port=http_port, metrics_port=METRICS_OFF)

    def _open_endpoint(self) -> MetricsEndpoint | None:
        where = self._config.listen
        if where.metrics_port == METRICS_OFF:
            return None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Totals(self._gather))
        self._guard.open()
        return MetricsEndpoint(registry, where.host, where.metrics_port, self._guard)

    async def _supervise(self, stop: asyncio.Event, line: str, show: Callable[[str], None]) -> int:
        stopped = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            starting.cancel()
            return await self._drain()  # of those that have come so far as to accept anything
        await starting
        show(self._children[0].table)
        show(line)
        keepers = [asyncio.create_task(self._keep(spec)) for spec in self._specs]
        keepers.append(asyncio.create_task(self._watch()))
        done, _ = await asyncio.wait((stopped, *keepers), return_when=asyncio.FIRST_COMPLETED)
        for keeper in keepers:
            keeper.cancel()
        if stopped not in done:
            await done.pop()  # a fault of ours
        return await self._drain()

    async def _start(self) -> None:
        """All load, then all listen: connections that come early would all go to the first."""
        for spec in self._specs:
            try:
                self._children.append(await self._spawn(spec))
            except OSError as error:
                raise StartupError(f"process {spec.number} cannot be started: {error.strerror}") from error
        await self._all_reach(Stage.LOADED)
        for child in self._children:
            child.tell(Order.SERVE)
        await self._all_reach(Stage.READY)

    async def _all_reach(self, stage: Stage) -> None:
        for reaching in asyncio.as_completed([_reach(child, stage) for child in self._children]):
            child = await reaching
            if child.stage is Stage.ENDED:
                raise StartupError(child.failure or f"process {child.number} {child.describe_end()}, see above")

    async def _spawn(self, spec: Spec) -> Child:
        child = await Child.start(spec, self._clock)
        logger.info("process %d starts, pid %d, CPUs: %d", spec.number, child.pid, spec.share.count)
        return child

    async def _keep(self, spec: Spec) -> None:
        """Starts the process again whenever it has ended."""
        back_off = BackOff()
        while True:
            child = self._children[spec.number]
            await child.reach(Stage.ENDED)
            self._retire(child)
            wait_s = back_off.after(child.served_s)
            logger.error(
                "process %d, pid %d, %s; %d of %d serve; it is started again in %g s",
                *(spec.number, child.pid, child.describe_end(), self._ready(), len(self._specs), wait_s),
            )
            child = await self._start_anew(spec, back_off, wait_s)
            if await child.reach(Stage.LOADED) is Stage.LOADED:
                child.tell(Order.SERVE)
            if await child.reach(Stage.READY) is Stage.READY:
                logger.info("process %d serves again; %d of %d serve", spec.number, self._ready(), len(self._specs))

    async def _start_anew(self, spec: Spec, back_off: BackOff, wait_s: float) -> Child:
        while True:
            await asyncio.sleep(wait_s)
            try:
                child = await self._spawn(spec)
            except OSError as error:  # no memory or no process to be had: that may pass
                wait_s = back_off.after(0.0)
                logger.error("process %d cannot be started: %s; next try in %g s", spec.number, error.strerror, wait_s)
            else:
                self._restarts += 1
                self._children[spec.number] = child
                return child

    async def _watch(self) -> None:
        """Ends whoever hangs. Counts beats, not seconds: a machine that was asleep is no reason."""
        limit_s = self._config.engine.hang_timeout_s
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for child in self._children:
                if child.stage is Stage.READY:
                    child.beat()
                    if 0 < limit_s <= child.silent_beats * HEARTBEAT_S:
                        logger.error(
                            "process %d, pid %d, gave no sign of life for %g s; it is killed (%s writes its stacks)",
                            *(child.number, child.pid, limit_s, STACKS.name),
                        )
                        child.end_hanging()

    async def _drain(self) -> int:
        """Everybody drains at once; the worst exit code counts."""
        inside = [child for child in self._children if child.stage is Stage.READY]
        for child in self._children:
            if child in inside:
                child.tell(Order.DRAIN)
            else:
                child.kill()
        limits = self._config.shutdown
        limit_s = limits.drain_delay_s + limits.drain_timeout_s + _LAST_WORDS_S
        if inside:
            logger.info("draining %d processes", len(inside))
            _, late = await asyncio.wait(
                [asyncio.create_task(child.reach(Stage.ENDED)) for child in inside], timeout=limit_s
            )
            if late:
                logger.error("%d processes did not end within %g s and are killed", len(late), limit_s)
                return EXIT_LOST
        bad = [child for child in inside if child.code != 0]
        for child in bad:
            logger.error("process %d %s", child.number, child.describe_end())
        return EXIT_LOST if bad else 0

    def _reload(self) -> None:
        """On SIGHUP."""
        logger.info("SIGHUP: API keys and certificates are read again, where there are any")
        for child in self._children:
            if child.stage in (Stage.LOADED, Stage.READY):
                child.tell(Order.RELOAD)
        self._reloading = asyncio.create_task(self._guard.reload())

    def _leave_at_once(self) -> None:
        for child in self._children:
            child.kill()
        leave(EXIT_LOST)

    def _ready(self) -> int:
        return sum(child.stage is Stage.READY for child in self._children)

    def _retire(self, child: Child) -> None:
        self._retired = add_up((self._retired, lasting(parse(child.metrics))))
        child.metrics = ""

    async def _gather(self) -> Families:
        """Everything that a scrape shows."""
        serving = [child for child in self._children if child.stage is Stage.READY]
        if serving:
            await asyncio.wait([asyncio.create_task(child.report()) for child in serving], timeout=SCRAPE_WAIT_S)
        # What has ended and what has not is read in one go, so that nobody is counted twice or not at all. Adding up
        # takes milliseconds a process, which the watch over them does not have.
        now = Reading(
            retired=self._retired,
            texts=tuple(child.metrics for child in self._children),
            processes=len(self._specs),
            ready=self._ready(),
            restarts=self._restarts,
        )
        return await asyncio.to_thread(lambda: add_up((shown(now), tuple(self._own.collect()))))


class _Totals(Collector):
    """Asks the supervisor, from the threads that serve scrapes."""

    def __init__(self, gather: Callable[[], Coroutine[None, None, Families]]) -> None:
        self._gather, self._loop = gather, asyncio.get_running_loop()

    def collect(self) -> Families:
        """The sums."""
        return asyncio.run_coroutine_threadsafe(self._gather(), self._loop).result(_SCRAPE_LIMIT_S)


async def _reach(child: Child, stage: Stage) -> Child:
    await child.reach(stage)
    return child
