"""Tables, numbers and the progress bar."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from pairwire.cli import output
from tests import processes
from tests.client.fake_server import FakeServer


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "1"), ("long name", "100")]
    assert output.table(("name", "n"), rows, right=[1]) == "name         n\na            1\nlong name  100"


def test_numbers_are_the_shortest_that_are_the_same_float32() -> None:
    numbers = np.array([0.1, 1 / 3, 1e-20, 12345.678], dtype=np.float32)
    assert output.shorts(numbers)[0] == 0.1
    assert np.array_equal(np.array(output.shorts(numbers), dtype=np.float32), numbers)
    assert [output.short(number) for number in numbers] == output.shorts(numbers)


def test_text_of_several_lines_becomes_one() -> None:
    assert output.one_line(" a\n\tb  c ") == "a b c"


def test_json_keeps_text_readable() -> None:
    assert output.json_line({"text": "наука", "n": 1}) == '{"text": "наука", "n": 1}'


@pytest.mark.parametrize(("count", "text"), [(900, "0.9 kB"), (22_935_001, "22.9 MB")])
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.slow
@pytest.mark.parametrize("to_terminal", [False, True])
def test_a_bar_is_shown_on_a_terminal_without_touching_results(
    tmp_path: Path, server: FakeServer, to_terminal: bool
) -> None:
    """The bar of a long run: the server answers only after the bar's delay."""
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    script = """
import sys
from pairwire.cli import output
output.SHOW_AFTER_S = 0.0
from pairwire.cli.main import main
sys.exit(main())
"""
    lines = tmp_path / "pairs.tsv"
    lines.write_text("".join(f"a\t{index}\n" for index in range(20_000)))
    command = [sys.executable, "-c", script, "score", "-i", str(lines), "--address", server.address]
    shown = b""
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        os.fdopen(side, "wb") as writer,
        (tmp_path / "out").open("wb") as out,
        processes.started(command, stdout=writer if to_terminal else out, stderr=writer) as process,
    ):
        writer.close()
        with contextlib.suppress(OSError):  # the other side has closed
            while block := screen.read(65536):
                shown += block
        assert process.wait(60) == 0
    assert (b"/20.0k" in shown) == (not to_terminal)
    if not to_terminal:
        assert len((tmp_path / "out").read_bytes().splitlines()) == 20_000
