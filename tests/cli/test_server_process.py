"""A server of our own: it comes up, it is stopped cleanly, and it is never left behind."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from pairwire.cli.server_process import ServerFailed, ServerProcess
from pairwire.client import Client

pytestmark = pytest.mark.slow

QUIET = "--metrics-port=-1"


def test_it_serves_and_stops_with_0(cross_encoder_package: Path) -> None:
    with ServerProcess.serve([cross_encoder_package], QUIET) as server:
        with Client(server.address) as client:
            client.wait_until_ready()
            assert len(client.score([("a", "b")])) == 1
        assert server.address.startswith("127.0.0.1:")
        server.stop()
        assert server.stopped
        assert not psutil.pid_exists(server.pid)


def test_a_package_that_is_none_is_told_with_the_last_lines(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ServerFailed, match=r"(?s)could not start, exit code 2; its last lines:.*no manifest\.json there"
        ),
        ServerProcess.serve([tmp_path], QUIET),
    ):
        pass


def test_a_body_that_fails_leaves_no_process(cross_encoder_package: Path) -> None:
    pids = []

    def fail() -> None:
        with ServerProcess.serve([cross_encoder_package], QUIET) as server:
            pids.append(server.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not psutil.pid_exists(pids[0])


def test_a_server_that_died_is_no_clean_stop(cross_encoder_package: Path) -> None:
    def kill() -> None:
        with ServerProcess.serve([cross_encoder_package], QUIET) as server:
            os.kill(server.pid, signal.SIGKILL)
            os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)  # its exit code is still to be had

    with pytest.raises(ServerFailed, match=r"the server ended on its own with exit code -9"):
        kill()
