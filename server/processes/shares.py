"""Divides the CPUs between processes: neighbours stay together, and a quota is divided too."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..cpus import usable_cpus
from ..errors import ConfigInvalid

_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Share:
    """The CPUs of one process."""

    cpus: tuple[int, ...]
    """Those that it may run on."""
    count: int
    """How many it is to count on: fewer than ``cpus`` where a quota is tighter than the affinity."""


def divide(processes: int, *, topology: Path = _TOPOLOGY) -> tuple[Share, ...]:
    """A share for each process, from the CPUs that this one may use.

    Raises:
        ConfigInvalid: fewer CPUs than processes, or a system on which the kernel does not spread connections.
    """
    if sys.platform != "linux":
        raise ConfigInvalid("processes: several servers on one port need Linux, which spreads connections; give 1")
    cpus, count = sorted(os.sched_getaffinity(0)), usable_cpus()
    if processes > count:
        raise ConfigInvalid(
            f"processes: {processes} are more than the {count} CPUs that can be used here; give at most {count}"
        )
    return share_out(sorted(cpus, key=lambda cpu: (*neighbourhood(cpu, topology), cpu)), count, processes)


def share_out(cpus: list[int], count: int, processes: int) -> tuple[Share, ...]:
    """Runs of ``cpus`` in their order, and equal parts of ``count``; the first ones get what is left over.

    With a quota the runs stay longer than the count: the CPUs are shared with others, and the kernel needs room to
    move threads away from them.
    """
    shares, start = [], 0
    for at in range(processes):
        end = start + (len(cpus) - at + processes - 1) // processes
        shares.append(Share(tuple(cpus[start:end]), (count - at + processes - 1) // processes))
        start = end
    return tuple(shares)


def neighbourhood(cpu: int, topology: Path = _TOPOLOGY) -> tuple[int, int, int, int]:
    """(NUMA node, package, last-level cache, core): what sorts hyperthreads of a core, and cores of a cache, together.

    What the system does not tell is 0.
    """
    home = topology / f"cpu{cpu}"
    node = next((int(path.name[4:]) for path in home.glob("node*") if path.name[4:].isdigit()), 0)
    package = _read(home / "topology/physical_package_id")
    core = _read(home / "topology/core_id")
    return node, package, _read(home / "cache/index3/id"), core


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
