"""A real server as the manifests run it: as nobody, on a read-only root, with the system calls that are left to it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.client import Client
from tests import processes
from tests.deploy.files import KUBERNETES, documents
from tests.deploy.test_systemd import SETTINGS
from tests.deploy.tools import run, tool
from tests.watching import can_trace

pytestmark = pytest.mark.slow

NOBODY = 65534
_SERVING = re.compile(r"pairwire: serving on (127\.0\.0\.1:\d+),")
_LOCK_UP = """
mount --make-rprivate / && mount -o remount,bind,ro / || exit 99
exec setpriv --reuid=$0 --regid=$0 --clear-groups --no-new-privs --inh-caps=-all,+dac_read_search \
  --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search "$@"
"""
"""A mount namespace of its own whose root is read-only, and a user without rights but to read: the interpreter and the
package of this run may lie where only root looks."""
_NO_WRITABLE_CODE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    print("this kernel cannot refuse it", file=sys.stderr)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""As MemoryDenyWriteExecute=yes, but by the kernel itself (Linux 6.3)."""


def _unprivileged() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "TMPDIR")}
    return kept | {"HOME": "/nonexistent"}


@contextlib.contextmanager
def served(
    *command: str | Path, environment: Mapping[str, str] | None = None, log: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that serves, and its address."""
    words: Sequence[str] = list(map(str, command))
    with (
        log.open("wb") as file,
        processes.started(words, stdout=subprocess.PIPE, stderr=file, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if found := _SERVING.match(line):
                yield process, found[1]
                return
        raise AssertionError(f"it does not serve: {log.read_text(encoding='utf-8')}")


def _probes() -> dict[str, str]:
    (deployment,) = documents(KUBERNETES / "base" / "deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {name: probe["grpc"]["service"] for name, probe in container.items() if name.endswith("Probe")}


def test_it_serves_as_nobody_on_a_read_only_root(package: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    lock_up = ["unshare", "--mount", "sh", "-c", _LOCK_UP, str(NOBODY)]
    if shutil.which("setpriv") is None or subprocess.run([*lock_up, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount, or has no setpriv")
    options = ["--port=0", "--metrics-port=0", "--warmup-s=0.01", "--log-format=json"]
    log = tmp_path / "log"
    with served(*lock_up, *processes.MAIN, "serve", package, *options, environment=_unprivileged(), log=log) as (
        process,
        address,
    ):
        mine = psutil.Process(process.pid)
        assert set(mine.uids()) == {NOBODY}
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in _probes().values():
                status = health.Check(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True).status
                assert status == health_pb2.HealthCheckResponse.SERVING
        with Client(address) as client:
            assert len(client.score([("a", "b")])) == 1
        written = [file for file in mine.open_files() if file.mode != "r" and file.path != str(log)]
        assert not written
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert "measured costs are not kept for the next start" in log.read_text(encoding="utf-8")


def test_the_systemd_unit_leaves_it_what_it_needs(package: Path, tmp_path: Path) -> None:
    tool("systemd-analyze")
    if not can_trace():
        pytest.skip("strace is not there, or may not trace")
    assert SETTINGS["MemoryDenyWriteExecute"] == "yes"
    trace = tmp_path / "trace"
    launcher = [sys.executable, "-c", _NO_WRITABLE_CODE, *processes.MAIN[1:]]
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=!futex", *launcher]
    with served(
        *command, "serve", package, "--port=0", "--metrics-port=0", "--warmup-s=0.01", log=tmp_path / "log"
    ) as (process, address):
        with Client(address) as client:
            assert len(client.score([("a", "b")])) == 1
        (traced,) = psutil.Process(process.pid).children()
        traced.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
    assert {"socket", "mmap", "openat"} <= used
    assert used <= _allowed("@system-service") - _allowed("@privileged")


def _allowed(group: str) -> set[str]:
    found: set[str] = set()
    for line in run("systemd-analyze", "syscall-filter", group).splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            found |= _allowed(name)
        elif name and not name.startswith("#"):
            found.add(name)
    return found
