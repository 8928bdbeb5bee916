"""One serving process: wires engine, gRPC, health, metrics and life cycle.

The port listens before the models are loaded, so that probes get an answer; RPCs are UNAVAILABLE until every model is
warm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .clock import Clock, SystemClock
from .compat import kserve, tei
from .compat.kserve_statistics import Statistics
from .compat.roles import Roles
from .config import HTTP_OFF, METRICS_OFF, ServerConfig
from .endpoint import MetricsEndpoint
from .engine.config import EngineConfig
from .engine.engine import Engine
from .engine.models.loading import Source
from .engine.observer import BatchEvent, Observer, RequestEvent
from .engine.watchdog import Watchdog
from .errors import ConfigInvalid, NotReady
from .health import health_of
from .lifecycle import Lifecycle, Phase
from .metrics import Metrics
from .open_files import OpenFiles
from .repository.control import Control
from .repository.repository import Change, Repository
from .rpc.caller import NameCaller
from .rpc.embedding import EmbeddingServicer
from .rpc.health import OVERALL, HealthBoard, is_of_a_model, model_health_name
from .rpc.interceptors import AccessLogger, ErrorsToStatus, Gate, Interceptor, Measure
from .rpc.model import ModelServicer
from .rpc.scoring import ScoringServicer
from .rpc.server import bind, build_server
from .rpc.sockets import cut_connections
from .rpc.traffic import Traffic
from .rpc.turns import TakeTurns
from .security.guard import Guard

if TYPE_CHECKING:
    from .compat.http.listener import HttpListener

logger = logging.getLogger(__name__)

SETTLE_S = 0.1
"""How long new RPCs are held before the connections are asked to go away: until all that clients had sent is inside.
Held ones are served like all others."""
QUIET_S = 0.05
"""Where nothing has come for so long after that, nobody will send in the moment in which gRPC stops."""

_BEATS = 10
"""This many times in the time after which it would be taken to hang, the event loop shows that it does not."""

_CLOSING_S = 1.0
"""For the last bytes of answers, and for streams such as reflection, once every RPC has ended."""


class EngineOpener(Protocol):
    """``Engine.open``, or what a test puts in its place."""

    async def __call__(
        self,
        *packages: Path | str | Source,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> Engine:
        """An engine that serves."""
        ...


class _Events:
    """The engine's observer: metrics, statistics, and health on the event loop's thread."""

    def __init__(self, metrics: Metrics, statistics: Statistics, on_health: Callable[[], None]) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._on_health = on_health

    def batch_finished(self, event: BatchEvent) -> None:
        self._metrics.batch_finished(event)
        self._statistics.batch_finished(event)

    def request_finished(self, event: RequestEvent) -> None:
        self._metrics.request_finished(event)
        self._statistics.request_finished(event)

    def model_health(self, model: str, healthy: bool) -> None:
        self._on_health()


class Application:
    """A server of one configuration: ``listen`` and ``load``, then ``drain`` or ``abort``, on one event loop.

    A server alone listens before it loads, so that probes get an answer. One of several on a port loads before it
    listens: the kernel would give it connections that the others could serve.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        clock: Clock | None = None,
        open_engine: EngineOpener = Engine.open,
        share_port: bool = False,
        on_fault: Callable[[BaseException], None] = lambda fault: None,
    ) -> None:
        """Builds the server; nothing listens yet. ``share_port`` lets other processes listen on the same port.

        ``on_fault`` is called, from another thread than the event loop's, when nothing will be served any more: it is
        the loop itself perhaps that hangs.
        """
        self.config = config
        self.lifecycle = Lifecycle()
        self.metrics = Metrics(config.engine.weights())
        self.failed = asyncio.Event()
        """Set when the engine has died and nothing will be served any more."""
        self.fault: BaseException | None = None
        """What it died of."""
        self.port = 0
        """The port that gRPC listens on, once it does."""
        self.metrics_port: int | None = None
        """The port of the metrics, once it listens; None where they are off."""
        self.http_port: int | None = None
        """The port of HTTP, once it listens; None where it is off."""
        self._clock = clock or SystemClock()
        self._open_engine = open_engine
        self._board = HealthBoard([kserve.SERVICE, *tei.SERVICES])
        self._statistics = Statistics()
        self._gate = Gate("the server is loading its models; try again soon, or another server")
        self._on_fault = on_fault
        self._share_port = share_port
        self._engine: Engine | None = None
        self._beating: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._endpoint: MetricsEndpoint | None = None
        self.roles = Roles(self._opened, config.roles)
        """Which model answers calls that name none."""
        self._repository = self._build_repository()
        self._control = Control(self._repository, allowed=config.repository.allow_model_control)
        self.guard = Guard(config)
        """Who may call, and the certificates."""
        self.traffic = Traffic(config.limits, config.connections)
        """What is on its way, in and out."""
        interceptors, connections = self._interceptors(), config.connections_of_a_port()
        self._server = build_server(
            (
                ScoringServicer(self._opened, config.limits),
                EmbeddingServicer(self._opened, config.limits),
                ModelServicer(self._opened, self._control),
                kserve.KServeServicer(
                    self._opened, self.roles, config.limits, self._board, self._statistics, self._control
                ),
                *tei.tei_servicers(self._opened, self.roles, config, self._clock),
            ),
            self._board,
            interceptors=[ErrorsToStatus(), *interceptors],
            limits=config.limits,
            connections=connections,
            traffic=self.traffic,
            access=self.guard.access,
            share_port=share_port,
        )
        self._http = self._build_http(interceptors)
        self.lifecycle.listen(lambda phase: self._show_health())

    @property
    def engine(self) -> Engine:
        """The engine, once the models are loaded. Raises NotReady before."""
        return self._opened()

    @property
    def http_connections(self) -> int:
        """Connections of HTTP that are open."""
        return 0 if self._http is None else self._http.connections

    async def listen(self) -> None:
        """Binds the ports; probes get an answer from now on.

        Raises:
            ConfigInvalid: no models are given, a port cannot be had, or the TLS files do not work.
        """
        self.config.check_models()
        where = self.config.listen
        self.guard.open()
        self.port = bind(self._server, where, self.guard.certificates)
        if where.metrics_port != METRICS_OFF:
            self._endpoint = MetricsEndpoint(self.metrics.registry, where.host, where.metrics_port, self.guard)
            self.metrics_port = self._endpoint.port
        if self._http is not None:
            await self._http.start(share_port=self._share_port, context=self.guard.context)
            self.http_port = self._http.port
        await self._server.start()
        logger.info("listening on %s:%d", where.host, self.port)

    async def load(self) -> None:
        """Loads and warms the models, then serves.

        Raises:
            StartupError: a package or the runtime does not work.
        """
        loop = asyncio.get_running_loop()
        kept = [] if self._repository is None else await asyncio.to_thread(self._repository.first)
        events = _Events(self.metrics, self._statistics, lambda: _call(loop, self._show_health))
        self._engine = await self._open_engine(
            *self.config.models,
            *kept,
            config=self.config.engine,
            clock=self._clock,
            observer=events,
            on_fatal=lambda error: self._die(loop, error),
        )
        self.roles.check()
        engine, defaults = self._engine, self.roles.known(tei.ROLES)
        self.metrics.watch(engine.models.values(), engine.statistics, defaults, engine.aliases)
        engine.on_models_changed(self._show_models)
        if self._repository is not None:
            self._repository.attach(engine)
        files = OpenFiles(self.config.connections.connection_limit())
        self._beating = asyncio.create_task(_beat(engine.watchdog, files))
        self._gate.open()
        self.lifecycle.enter(Phase.READY)

    async def drain(self) -> bool:
        """Stops without losing a request that was accepted; returns False where some did not end within the limit.

        Health turns first; after the delay connections are asked to go away, and what is inside is served to its end.
        """
        limits = self.config.shutdown
        self.lifecycle.enter(Phase.DRAINING)
        if self._http is not None:
            self._http.announce_leaving()
        await asyncio.sleep(limits.drain_delay_s)
        hurrying = asyncio.get_running_loop().call_later(limits.drain_timeout_s / 2, self.traffic.hurry)
        await self._turn_away()
        in_time = await self._emptied(limits.drain_timeout_s)
        hurrying.cancel()
        if not in_time:
            inside, limit_s = self.traffic.inside, limits.drain_timeout_s
            logger.error("%d requests did not end within drain_timeout_s %g", inside, limit_s)
        await self._close(_CLOSING_S if in_time else 0.0)
        return in_time

    async def _turn_away(self) -> None:
        """Sends clients elsewhere, in the way in which none of their calls is lost.

        gRPC cancels what arrives in the moment in which it stops. So calls are held for a moment, until all clients
        that wait for answers are still; then they are asked to go away, and what was held is served. Clients that go on
        sending get UNAVAILABLE, and their connections are cut when all that was accepted is answered.
        """
        self._gate.hold()
        self.traffic.close_streams()
        await asyncio.sleep(SETTLE_S)
        arrived = self.traffic.arrived
        await asyncio.sleep(QUIET_S)
        if self.traffic.arrived == arrived:
            self._stop_soon()
            await asyncio.sleep(0)  # the task's first step is what sends the connections away
        else:
            self._gate.close("the server is draining; try another server")
        if self._http is not None:
            self._http.turn_away()
        self._gate.release()

    def _stop_soon(self) -> None:
        if self._stopping is None:
            limits = self.config.shutdown
            self._stopping = asyncio.create_task(self._server.stop(limits.drain_timeout_s + _CLOSING_S))

    async def abort(self) -> None:
        """Stops at once: while loading, or when the engine has died. What is still inside fails. Idempotent."""
        if self.lifecycle.phase is Phase.STOPPED:
            return
        if self.lifecycle.phase is Phase.READY:
            self.lifecycle.enter(Phase.DRAINING)
        self._gate.close("the server is stopping; try another server")
        await self._close(_CLOSING_S)

    async def _emptied(self, timeout_s: float) -> bool:
        """Waits for the RPCs inside to end; False where some do not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.traffic.wait_empty()
        except TimeoutError:
            return False
        return True

    async def _close(self, limit_s: float) -> None:
        """``limit_s`` is for batches that run."""
        self._board.close()
        if self._engine is not None:
            await self._engine.close(limit_s)
        if self._repository is not None:
            await self._repository.close(limit_s)
        self.guard.close()
        if self._beating is not None:
            self._beating.cancel()
        await self._emptied(_CLOSING_S)  # what the engine failed on its end is still to be answered
        if self._http is not None:
            self._http.close()
        if self._stopping is None:
            cut_connections(self.port)
            await self._server.stop(_CLOSING_S)
        else:
            await asyncio.wait((self._stopping,), timeout=_CLOSING_S)
            self._stopping.cancel()
            await self._server.stop(0)
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        self.lifecycle.enter(Phase.STOPPED)

    def _die(self, loop: asyncio.AbstractEventLoop, fault: BaseException) -> None:
        """From the thread that found out."""
        self.fault = fault
        self._on_fault(fault)
        _call(loop, self.failed.set)

    def _interceptors(self) -> list[Interceptor]:
        """Outermost first, of gRPC and HTTP. What is measured includes what the gate refuses."""
        chain: list[Interceptor] = [Measure(self.metrics, self._clock)]
        access = logging.getLogger("pairwire.access")
        if access.isEnabledFor(logging.DEBUG):
            chain.append(Measure(AccessLogger(access), self._clock))
        return [*chain, self._gate, NameCaller(self.config.callers.caller_key), TakeTurns(lambda: self.traffic.arrived)]

    def _build_http(self, interceptors: Sequence[Interceptor]) -> HttpListener | None:
        """What serves HTTP; None where it is off. Raises ConfigInvalid where what it needs is not installed."""
        if self.config.listen.http_port == HTTP_OFF:
            return None
        try:
            from .compat.http.routes import Services
            from .compat.http.service import build_listener
        except ImportError as error:
            raise ConfigInvalid(
                f"http_port: HTTP needs {error.name}, which is not installed; run pip install 'pairwire[http]', "
                "or set http_port to -1"
            ) from None
        return build_listener(
            self.config,
            Services(self._opened, self.roles, self.config.limits),
            healthy=self._is_healthy,
            statistics=self._statistics,
            control=self._control,
            registry=self.metrics.registry,
            interceptors=interceptors,
            traffic=self.traffic,
            access=self.guard.access,
            clock=self._clock,
            grpc_port=lambda: self.port,
        )

    def _build_repository(self) -> Repository | None:
        root = self.config.repository.repository
        return None if root is None else Repository(root, self.config.engine, on_change=self._model_changed)

    def _model_changed(self, model: str, change: Change) -> None:
        self.metrics.model_changed(model, change.value)
        if change is Change.UNLOADED:
            self.metrics.forget(model)
            self._statistics.forget(model)

    def _show_models(self) -> None:
        """Other models answer than before."""
        if self._engine is not None:
            engine, defaults = self._engine, self.roles.known(tei.ROLES)
            self.metrics.update(engine.models.values(), defaults, engine.aliases)
            self._show_health()

    def _is_healthy(self, model: str) -> bool:
        """As ``grpc.health.v1`` says of a model; of the whole server, where no name is given."""
        return self._board.serving(model_health_name(model) if model else OVERALL) is True

    def _opened(self) -> Engine:
        if self._engine is None:
            raise NotReady("the server is loading its models; try again soon, or another server")
        return self._engine

    def _show_health(self) -> None:
        """Health is a function of the phase and of the engine's own view of its models, no state besides them."""
        phase = self.lifecycle.phase
        if phase in (Phase.DRAINING, Phase.STOPPED):
            self._board.close()
        elif phase is Phase.READY and self._engine is not None:
            health = health_of(self._engine)
            self._board.set(health)
            self._board.forget(name for name in self._board.names() if is_of_a_model(name) and name not in health)


async def _beat(watchdog: Watchdog, files: OpenFiles) -> None:
    """Shows the watchdog that the event loop turns, and looks after the open files."""
    with watchdog.watch("the event loop") as watched:
        while True:
            watched.beat()
            files.look()
            await asyncio.sleep((watched.limit_s or _BEATS) / _BEATS)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Calls a function on the loop, from any thread; nothing where the loop has gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
