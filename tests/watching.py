"""Watches a program from outside: which files it leaves, and where it tries to connect to (with strace)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ELSEWHERE = re.compile(r'sin6?_port=htons\((\d+)\).*?"([^"]+)"')
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
_OPTED = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME")
"""What somebody who runs the tests may have set, and a user has not."""
_BUILD_SERVERS = (
    "CI",
    "TF_BUILD",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "TRAVIS",
    "JENKINS_URL",
    "CODEBUILD_BUILD_ID",
    "BUILDKITE",
    "TEAMCITY_VERSION",
    "APPVEYOR",
    "BITBUCKET_BUILD_NUMBER",
)
"""ONNX Runtime sends nothing where one of these is set, so a build server would see less than a user has."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a program did."""

    code: int
    output: str
    files: Sequence[str]
    """What lies below its home, cache and temporary directories in the end: ``cache/pairwire/...``."""
    peers: Sequence[str] | None
    """Where it, or a child of it, tried to connect or send to: ``10.0.0.1:53``. None where strace cannot be used."""


def can_trace() -> bool:
    """Whether strace is here and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def watch(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Watched:
    """Runs Python with arguments, with nothing but empty directories to write to by default."""
    places = {"HOME": "home", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config", "TMPDIR": "tmp"}
    for name in places.values():
        (directory / name).mkdir(parents=True)
    inherited = {name: value for name, value in os.environ.items() if name not in (*_OPTED, *_BUILD_SERVERS)}
    settings = {variable: str(directory / name) for variable, name in places.items()}
    trace = directory / "trace"
    prefix = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace), "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    tracing = can_trace()
    done = subprocess.run(
        [*(prefix if tracing else ()), sys.executable, *arguments],
        env={**inherited, **settings, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    files = sorted(
        str(path.relative_to(directory)) for name in places.values() for path in (directory / name).rglob("*")
    )
    return Watched(done.returncode, done.stdout, files, _peers(trace) if tracing else None)


def _peers(trace: Path) -> list[str]:
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {f"{peer[2]}:{peer[1]}" for line in lines if (peer := _ELSEWHERE.search(line))}
    return sorted(found)


def elsewhere(peers: Sequence[str]) -> list[str]:
    """Of the peers those that are not on this machine, or are asked for names."""
    return [peer for peer in peers if not _LOOPBACK.match(peer.rpartition(":")[0]) or peer.endswith(":53")]
