from __future__ import annotations

import io
import logging
import warnings

import pytest

from pairwire.export.progress import Event, Printer, Progress, StepFinished, StepStarted, quiet_libraries


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_step_is_told_with_its_detail_and_duration() -> None:
    events: list[Event] = []
    with Progress(events.append).step("load") as step:
        step.detail = "bert"
    assert events[0] == StepStarted("load")
    assert isinstance(events[1], StepFinished)
    assert (events[1].title, events[1].detail) == ("load", "bert")
    assert events[1].seconds >= 0


def test_failed_step_does_not_finish() -> None:
    events: list[Event] = []
    with pytest.raises(ValueError, match="broken"), Progress(events.append).step("load"):
        raise ValueError("broken")
    assert events == [StepStarted("load")]


def test_progress_without_a_listener_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().step("load"):
        pass
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_log_file_gets_one_line_a_step() -> None:
    stream = io.StringIO()
    printer = Printer(stream)
    printer(StepStarted("load"))
    printer(StepFinished("load", 1.25, "bert"))
    assert stream.getvalue() == "   1.2 s  load: bert\n"


def test_terminal_shows_the_running_step() -> None:
    stream = Terminal()
    printer = Printer(stream)
    printer(StepStarted("load"))
    assert "load" in stream.getvalue()
    printer(StepFinished("load", 0.5, ""))
    assert stream.getvalue().endswith("\r   0.5 s  load\n")


def test_libraries_are_quiet_only_inside(recwarn: pytest.WarningsRecorder) -> None:
    logger = logging.getLogger("transformers")
    with quiet_libraries():
        level = logger.level
        warnings.warn("noise", stacklevel=1)
    assert level == logging.CRITICAL
    assert logger.level != logging.CRITICAL
    assert not recwarn.list


def test_warnings_stand_between_the_steps() -> None:
    stream = io.StringIO()
    Progress(Printer(stream)).warn("mind the gap")
    assert stream.getvalue() == "  warning: mind the gap\n"
