"""Who does which shards: this process alone, or several that divide its CPUs.

A process that is killed leaves nothing behind: its children end with it, and a part that was under way has no name.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pairwire.server.cpus import limit_cpus, usable_cpus

from .errors import BulkError
from .manifest import Manifest, lane_name
from .progress import Report
from .worker import Computer, Lane, Plan

_PARENT_DIED = 1
"""PR_SET_PDEATHSIG of Linux."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """What computes, as a value that any process can open."""

    package: Path | None = None
    """A package here."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Fields of the engine's settings."""
    addresses: tuple[str, ...] = ()
    """Or servers."""
    timeout_s: float = 60.0
    tls: Any = None
    """A `pairwire.client.TlsFiles`, or None."""

    def open(self, plan_job: Any) -> Computer:
        """Loads the package, or connects.

        Raises:
            PairwireError, ClientError: that is not possible; the sentence says why.
        """
        if self.package is not None:
            from .planned import PlannedModel
            from .sharing import batch_config

            return PlannedModel(self.package, plan_job, batch_config(**self.engine))
        from pairwire.client import Client, ClientOptions

        from .remote import RemoteModel

        options = ClientOptions(timeout_s=self.timeout_s, tls=self.tls, user_agent="pairwire-bulk")
        target: Any = self.addresses[0] if len(self.addresses) == 1 else list(self.addresses)
        return RemoteModel(Client(target, options=options), plan_job)


def run_lanes(
    plan: Plan,
    where: Where,
    computer: Computer,
    shard: tuple[int, int],
    processes: int,
    report: Callable[[Report], None],
) -> None:
    """Does the shards of this process's share of a run.

    ``computer`` is open; several processes open their own, and this one is closed for them.

    Raises:
        BulkError: the run cannot go on; what is finished is kept.
    """
    if processes == 1:
        whole = replace(plan, lanes=shard[1])
        Lane(whole, shard[0], computer, Manifest(plan.directory, lane_name(shard)), report).run()
        return
    computer.close()
    _run_processes(replace(plan, lanes=shard[1] * processes), where, shard, processes, report)


def _run_processes(
    plan: Plan, where: Where, shard: tuple[int, int], processes: int, report: Callable[[Report], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    children: dict[Connection, Any] = {}
    try:
        for lane in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            given = (plan, where, shard, lane, processes, sender)
            child = context.Process(target=_child, args=given, name=f"pairwire-bulk-{lane}", daemon=True)
            child.start()
            sender.close()
            children[receiver] = child
        while children:
            for ready in wait(list(children)):
                assert isinstance(ready, Connection)
                _receive(ready, children, report)
    finally:
        for receiver, child in children.items():
            child.terminate()
            child.join()
            receiver.close()


def _receive(ready: Connection, children: dict[Connection, Any], report: Callable[[Report], None]) -> None:
    try:
        found = ready.recv()
    except EOFError:
        child = children.pop(ready)
        ready.close()
        child.join()
        if child.exitcode:
            raise BulkError(
                f"a process of the run ended with exit code {child.exitcode}; what is finished is kept: start it again"
            ) from None
        return
    if isinstance(found, Exception):
        raise found
    report(found)


def _child(plan: Plan, where: Where, shard: tuple[int, int], lane: int, processes: int, sender: Connection) -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this one
    limit_cpus(max(1, usable_cpus() // processes))
    try:
        computer = where.open(plan.job)
        try:
            manifest = Manifest(plan.directory, lane_name(shard, lane))
            Lane(plan, shard[0] * processes + lane, computer, manifest, sender.send).run()
        finally:
            computer.close()
    except Exception as error:
        with contextlib.suppress(OSError):
            sender.send(_portable(error))
    finally:
        sender.close()


def _portable(error: Exception) -> Exception:
    """The error itself where it can be sent, or else its sentence."""
    import pickle

    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else BulkError(str(error))
    except Exception:  # whatever a constructor with other arguments raises
        return BulkError(f"{type(error).__name__}: {error}" if not isinstance(error, BulkError) else str(error))


def _end_with_parent() -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DIED, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it died before we asked
        os._exit(1)
