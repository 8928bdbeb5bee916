"""Connections that take all files are told of once."""

from __future__ import annotations

import contextlib
import socket

import pytest

from pairwire.server.open_files import OpenFiles


def test_it_is_said_once_until_there_is_room_again(caplog: pytest.LogCaptureFixture) -> None:
    files = OpenFiles(4)
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.socket())
            files.look()
            assert not caplog.records
            stack.enter_context(socket.socket())
            for _ in range(3):
                files.look()
            assert [record.getMessage()[:35] for record in caplog.records] == ["nearly all of the 4 connections tha"]
        files.look()
        caplog.clear()
