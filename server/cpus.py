"""How many CPUs this process may really use: affinity and cgroup quota, not what the host has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


_share: int | None = None


def limit_cpus(count: int) -> None:
    """From now on this process counts no more than this many CPUs as usable: its share, where several divide a quota.

    A quota holds for all processes of a group together, so no process can read its share of it anywhere.
    """
    global _share
    _share = count


def usable_cpus(*, cgroup_root: Path = _CGROUP_ROOT, cgroup_of_process: Path = _CGROUP_OF_PROCESS) -> int:
    """CPUs by affinity, cut to the tightest CPU quota of the process's cgroups (v1 or v2) and to its share; at least 1.

    A quota of 2.5 CPUs counts as 2: threads on a half CPU are throttled, and that costs more than the half brings.
    """
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    quota = cgroup_quota(cgroup_root, cgroup_of_process)
    if quota is not None:
        limits.append(math.floor(quota))
    if _share is not None:
        limits.append(_share)
    return max(1, min(limits))


def cgroup_quota(root: Path = _CGROUP_ROOT, of_process: Path = _CGROUP_OF_PROCESS) -> float | None:
    """The tightest quota in CPUs, from the process's cgroup up to ``root``; None where nothing limits it."""
    quotas = [
        quota
        for directory in cgroup_directories(root, of_process, "cpu")
        for quota in (_quota_v2(directory), _quota_v1(directory))
        if quota is not None
    ]
    return min(quotas, default=None)


def cgroup_directories(root: Path, of_process: Path, controller: str) -> list[Path]:
    """Every directory that may limit the process: its own groups of a controller (v1 or v2) and all their parents.

    In a container the path in /proc may be the host's, and so not exist here; its parents, down to the root, still do.
    """
    found = [root, root / controller, *([root / "cpu,cpuacct"] if controller == "cpu" else [])]
    for line in _read(of_process).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        bases = [root] if not controllers else [root / controller, root / controllers]
        relative = Path(path.lstrip("/"))
        found += [base / part for base in bases for part in (relative, *relative.parents)]
    return list(dict.fromkeys(found))


def _quota_v2(directory: Path) -> float | None:
    limit, _, period = _read(directory / "cpu.max").partition(" ")
    return _ratio(limit, period)


def _quota_v1(directory: Path) -> float | None:
    return _ratio(_read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us"))


def _ratio(limit: str, period: str) -> float | None:
    """None for "max", -1 (no limit in v1), and whatever is not a number."""
    try:
        quota, length = int(limit), int(period)
    except ValueError:
        return None
    return quota / length if quota > 0 and length > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
