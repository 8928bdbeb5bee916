"""One of several servers on a port: ``python -m pairwire.server.processes FD``, started by the supervisor alone."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from .. import logs
from ..cpus import limit_cpus
from ..errors import StartupError
from ..eventloop import EXIT_LOST, EXIT_STARTUP, catch_signals, leave, loop_factory
from .child import STACKS
from .devices import with_own_device
from .messages import News, Order, Spec, decode, encode

logger = logging.getLogger("pairwire.server.processes")

_LAST_WORDS_S = 15.0
"""What a drain may take beyond its own limits before an orphan is ended."""


class Line:
    """The line to the supervisor. ``tell`` may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._lock = threading.Lock()

    def first(self) -> Spec:
        """What to be. Ends the process where the supervisor has gone already."""
        line = self._lines.readline()
        if not line:
            leave(0)
        _, text = decode(line)
        return Spec.from_text(text)

    def listen(self, on_order: Callable[[str], None], on_gone: Callable[[], None]) -> None:
        """Calls back for each order, and once when the supervisor has gone, from a thread of its own.

        A thread, for a supervisor's end must be noticed even where the event loop hangs.
        """

        def read() -> None:
            try:
                for line in self._lines:
                    on_order(decode(line)[0])
            except OSError:
                pass
            on_gone()

        threading.Thread(target=read, name="pairwire-supervisor", daemon=True).start()

    def tell(self, news: News, text: str = "") -> None:
        """Sends; nothing where the supervisor has gone."""
        try:
            with self._lock:
                self._connection.sendall(encode(news, text))
        except OSError:
            pass


def main() -> int:
    """Runs one server; returns the exit code."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    line = Line(connection)
    spec = line.first()
    # Before anything heavy is imported: libraries count CPUs when they are, and threads inherit the affinity.
    os.sched_setaffinity(0, spec.share.cpus)
    limit_cpus(spec.share.count)
    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    settings = spec.config.logging
    logs.install(sys.stderr, log_format=settings.log_format, level=settings.log_level, process_number=spec.number)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(spec, line))
    except StartupError as error:
        line.tell(News.FAILED, str(error))
        return EXIT_STARTUP


async def _serve(spec: Spec, line: Line) -> NoReturn:
    from prometheus_client import generate_latest

    from ..app import Application
    from ..banner import start_up_table
    from ..serving import explained_start, hangup_of, on_fault, serve_until

    loop = asyncio.get_running_loop()
    stop, serve = asyncio.Event(), asyncio.Event()
    built: list[Application] = []
    hang_up = hangup_of(built)
    catch_signals(stop, on_second=lambda: leave(EXIT_LOST), on_hangup=hang_up)
    with explained_start():
        own = with_own_device(spec.config, spec.number)
        application = Application(own, share_port=True, on_fault=on_fault)
    built.append(application)
    reports: set[asyncio.Task[None]] = set()

    def tell_metrics() -> None:
        line.tell(News.REPORT, generate_latest(application.metrics.registry).decode())

    def report() -> None:
        # That the loop comes to it is the sign of life; writing the text takes milliseconds that requests can use.
        task = asyncio.create_task(asyncio.to_thread(tell_metrics))
        reports.add(task)
        task.add_done_callback(reports.discard)

    def call(function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: this process is about to end
            loop.call_soon_threadsafe(function)

    def on_order(order: str) -> None:
        actions = {Order.SERVE: serve.set, Order.REPORT: report, Order.DRAIN: stop.set, Order.RELOAD: hang_up}
        call(actions[Order(order)])

    def on_gone() -> None:
        logger.error("the supervisor has gone; process %d drains and ends", spec.number)
        call(stop.set)
        limits = spec.config.shutdown
        threading.Event().wait(limits.drain_delay_s + limits.drain_timeout_s + _LAST_WORDS_S)
        leave(EXIT_LOST)

    async def start() -> None:
        await application.load()
        line.tell(News.LOADED, start_up_table(application.engine.models.values()))
        await serve.wait()
        await application.listen()

    line.listen(on_order, on_gone)
    await serve_until(stop, application, start=start, on_ready=lambda: line.tell(News.READY), on_end=tell_metrics)


if __name__ == "__main__":
    sys.exit(main())
