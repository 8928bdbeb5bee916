"""A `pairwire serve` of our own: a child process that is watched, stopped cleanly, and never left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .exits import CommandError

START_LIMIT_S = 180.0
STOP_LIMIT_S = 45.0
LOG_TAIL = 20

_SERVING = re.compile(r"serving on (\S+:\d+)")


class ServerFailed(CommandError):
    """The server ended on its own, did not start in time, or did not stop cleanly; the sentence has its last lines."""


class ServerProcess:
    """A running server. ``address`` is where it listens; ``stop`` ends it, after which ``stopped`` is True."""

    def __init__(self, process: subprocess.Popen[str], output: deque[str]) -> None:
        self._process = process
        self._output = output
        self._listening = threading.Event()
        self.address = ""
        self.stopped = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @classmethod
    @contextmanager
    def serve(cls, packages: Sequence[Path], *options: str) -> Iterator[ServerProcess]:
        """Serves packages on a free loopback port; whatever happens, the process is gone in the end.

        Raises:
            ServerFailed: it does not come up, or its end is not clean.
        """
        command = [sys.executable, "-m", "pairwire.cli.main", "serve", *map(str, packages), "--port=0", *options]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        server = cls(process, deque(maxlen=LOG_TAIL))
        try:
            server._wait_until_listening()
            yield server
            if not server.stopped:
                server.stop()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            server._reader.join()

    def stop(self) -> None:
        """SIGTERM, after which the server finishes what it has accepted.

        Raises:
            ServerFailed: it had ended before, or ends with another code than 0.
        """
        code = self._process.poll()
        if code is not None:
            raise ServerFailed(f"the server ended on its own with exit code {code}{self._tail()}")
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server did not stop within {STOP_LIMIT_S:g} s{self._tail()}") from None
        if code != 0:
            raise ServerFailed(f"the server stopped with exit code {code}, expected 0{self._tail()}")
        self.stopped = True

    def log(self) -> list[str]:
        """The last lines that the server wrote."""
        return list(self._output)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._output.append(line.rstrip("\n"))
                found = _SERVING.search(line)
                if found:
                    self.address = found[1]
                    self._listening.set()
        self._listening.set()  # it has ended: nobody need wait any longer

    def _wait_until_listening(self) -> None:
        came_up = self._listening.wait(START_LIMIT_S)
        if not came_up:
            raise ServerFailed(f"the server was not up within {START_LIMIT_S:g} s{self._tail()}")
        if not self.address:
            raise ServerFailed(f"the server could not start, exit code {self._process.wait()}{self._tail()}")

    def _tail(self) -> str:
        if not self._output:
            return "; it wrote nothing"
        return "; its last lines:\n  " + "\n  ".join(self._output)
