"""Lines for people on a terminal, JSON for programs elsewhere."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from pairwire.server import logs

LOG = logging.getLogger("pairwire.server.test")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logs.install(stream)
    yield stream
    logs.uninstall(handler)


def test_elsewhere_than_on_a_terminal_a_line_is_a_json_object(stream: io.StringIO) -> None:
    LOG.info("loaded %r", "m", extra={"seconds": 1.5, "where": object})
    line = json.loads(stream.getvalue())
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "info",
        "logger": "pairwire.server.test",
        "message": "loaded 'm'",
        "seconds": 1.5,
        "where": "<class 'object'>",
    }


def test_an_exception_stays_within_its_json_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        LOG.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


def test_on_a_terminal_a_line_is_text() -> None:
    terminal = Terminal()
    handler = logs.install(terminal)
    LOG.warning("slow", extra={"ms": 12})
    try:
        raise ValueError("why")
    except ValueError:
        LOG.exception("failed")
    logs.uninstall(handler)
    first, second, *traceback = terminal.getvalue().splitlines()
    assert first.endswith("warning slow  ms=12")
    assert second.endswith("error   failed")
    assert traceback[-1] == "    ValueError: why"  # set in, so that it passes for no line of its own


@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("text", False)])
def test_the_format_can_be_forced(log_format: str, is_json: bool) -> None:
    terminal = Terminal()
    handler = logs.install(terminal, log_format=log_format)
    LOG.info("hello")
    logs.uninstall(handler)
    assert terminal.getvalue().startswith("{") is is_json


def test_only_the_level_and_above_is_logged_of_ours_and_warnings_of_others(stream: io.StringIO) -> None:
    LOG.debug("quiet")
    logging.getLogger("somebody.else").info("quiet")
    assert stream.getvalue() == ""
    logging.getLogger("somebody.else").warning("loud")
    assert "loud" in stream.getvalue()


def test_uninstalled_handlers_hear_nothing() -> None:
    stream = io.StringIO()
    logs.uninstall(logs.install(stream, level="debug"))
    LOG.error("lost", exc_info=False)
    assert stream.getvalue() == ""
    assert not logging.getLogger("pairwire").isEnabledFor(logging.DEBUG)


def test_a_process_of_several_puts_its_number_on_every_line() -> None:
    stream = io.StringIO()
    handler = logs.install(stream, process_number=3)
    LOG.info("hello")
    logging.getLogger("some.library").warning("hm")
    logs.uninstall(handler)
    assert [json.loads(line)["process_number"] for line in stream.getvalue().splitlines()] == [3, 3]


NASTY = "a\x1b[2J\n12:00:00.000 info    forged\x9b\x7f\u2028\u202e\ud800é"


def test_nothing_that_is_logged_forges_a_line_or_reaches_a_terminal() -> None:
    for log_format in ("text", "json"):
        stream = io.StringIO()
        handler = logs.install(stream, log_format=log_format)
        try:
            try:
                raise ValueError(NASTY)
            except ValueError:
                logging.getLogger("pairwire").error("of %s", NASTY, extra={"model": NASTY}, exc_info=True)
        finally:
            logs.uninstall(handler)
        text = stream.getvalue()
        text.encode("utf-8")
        assert all(each.isprintable() for line in text.split("\n") for each in line)
        assert "é" in text
        assert not [line for line in text.split("\n")[1:] if line.startswith("12:")]
        if log_format == "json":
            assert text.count("\n") == 1
            assert json.loads(text)["model"] == NASTY
