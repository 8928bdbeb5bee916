"""One server process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from enum import IntEnum

from ..clock import Clock
from ..eventloop import EXIT_HUNG
from .messages import News, Order, Spec, decode, encode

COMMAND = (sys.executable, "-m", "pairwire.server.processes")
"""Followed by the number of the file descriptor to talk over."""

STACKS = signal.SIGUSR1
"""Makes a server write the stacks of all its threads to stderr; it goes on."""

_LONGEST_MESSAGE = 1 << 26
_WRITING_STACKS_S = 1.0


class Stage(IntEnum):
    """How far a server has come; it never goes back."""

    STARTING = 0
    LOADED = 1
    READY = 2
    ENDED = 3


class Child:
    """A server process that has been started. All calls come from the supervisor's event loop."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        clock: Clock,
    ) -> None:
        self.number = number
        self.pid = process.pid
        self.stage = Stage.STARTING
        self.table = ""
        """The start-up table, once it is loaded."""
        self.failure = ""
        """The sentence why it cannot start."""
        self.metrics = ""
        """Its last report."""
        self.silent_beats = 0
        """How many reports in a row were due and have not come."""
        self._process, self._reader, self._writer, self._clock = process, reader, writer, clock
        self._ready_at: float | None = None
        self._served_s = 0.0
        self._changed = asyncio.Event()
        self._report: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, spec: Spec, clock: Clock) -> Child:
        """Starts the process. Raises OSError where the system cannot."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # It inherits stderr: a log that went through the supervisor would be lost with it, and could block.
                # Nothing but the supervisor's own lines may come to stdout, where programs read them.
                process = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=2,
                    process_group=0,  # a terminal's Ctrl-C is for the supervisor
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST_MESSAGE)
        except BaseException:
            ours.close()  # whoever has been started already reads the end of the stream, and ends
            raise
        child = cls(spec.number, process, reader, writer, clock)
        child.tell(Order.SPEC, spec.to_text())
        return child

    @property
    def code(self) -> int:
        """The exit code, negative for a signal, once it has ended."""
        assert self._process.returncode is not None
        return self._process.returncode

    @property
    def served_s(self) -> float:
        """How long it served, once it has ended; 0 where it never came up."""
        return self._served_s

    async def reach(self, stage: Stage) -> Stage:
        """Waits until it has come so far, or has ended; returns where it is."""
        while self.stage < stage:
            await self._changed.wait()
        return self.stage

    def tell(self, order: Order, text: str = "") -> None:
        """Sends an order, unless it has ended."""
        if not self._writer.is_closing():
            self._writer.write(encode(order, text))

    async def report(self) -> None:
        """Asks for the metrics; returns when they are in ``metrics``, or it has ended."""
        if self.stage is Stage.ENDED:
            return
        if self._report is None:
            self._report = asyncio.get_running_loop().create_future()
            self.tell(Order.REPORT)
        await asyncio.shield(self._report)

    def beat(self) -> None:
        """Asks for the next report, or counts that the last one is still missing. To be called at a steady pace."""
        if self._report is not None:
            self.silent_beats += 1
        elif self.stage is not Stage.ENDED:
            self._report = asyncio.get_running_loop().create_future()
            self.tell(Order.REPORT)

    def end_hanging(self) -> None:
        """Has it write its stacks, then kills it."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._write_stacks_and_die())

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def describe_end(self) -> str:
        """How it ended, for people: ``was killed by SIGKILL``."""
        if self._ending is not None:
            return "hung and was killed"
        if self.failure:
            return f"could not start: {self.failure}"
        if self.code == -signal.SIGKILL:
            return "was killed by SIGKILL (has the memory run out?)"
        if self.code == EXIT_HUNG:
            return f"ended because something in it hung (exit code {EXIT_HUNG})"
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        try:
            return f"was killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was killed by signal {-self.code}"

    async def _write_stacks_and_die(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(STACKS)
        await asyncio.sleep(_WRITING_STACKS_S)
        self.kill()

    async def _follow(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(*decode(line))
        except (OSError, ValueError):  # cut off in the middle of a line, or of what was being sent to it
            pass
        await self._process.wait()
        self._writer.close()
        if self._ready_at is not None:
            self._served_s = self._clock.monotonic() - self._ready_at
        self._enter(Stage.ENDED)
        self._answer()

    def _take(self, kind: str, text: str) -> None:
        self.silent_beats = 0
        if kind == News.LOADED:
            self.table = text
            self._enter(Stage.LOADED)
        elif kind == News.READY:
            self._ready_at = self._clock.monotonic()
            self._enter(Stage.READY)
        elif kind == News.FAILED:
            self.failure = text
        elif kind == News.REPORT:
            self.metrics = text
            self._answer()

    def _answer(self) -> None:
        waiting, self._report = self._report, None
        if waiting is not None:
            waiting.set_result(None)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
