from __future__ import annotations

import io
import logging
import warnings

import pytest

from pairwire.export.errors import DataInvalid, ExportBroken, StepFailed
from pairwire.export.progress import (
    Event,
    Printer,
    Progress,
    StepAdvanced,
    StepFinished,
    StepStarted,
    part_of,
    quiet_libraries,
)


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
    sentence = r"model: could not load: broken \(ValueError\); this was not foreseen"
    with pytest.raises(ExportBroken, match=sentence), Progress(events.append, "model").step("load"):
        raise ValueError("broken")
    assert events == [StepStarted("load")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("type"), "KeyError: 'type'"),
        (RecursionError("maximum recursion depth"), "nested too deeply"),
        (
            ValueError("Error(s) in loading:\n\n\tsize mismatch\n\tfor a"),
            "Error\\(s\\) in loading: size mismatch for a$",
        ),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_step_that_reads_what_the_user_gave_blames_that(error: Exception, reason: str) -> None:
    with (
        pytest.raises(StepFailed, match=f"could not load: {reason}") as raised,
        Progress().step("load", reads_input=True),
    ):
        raise error
    assert not isinstance(raised.value, ExportBroken)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        MemoryError(),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_machine_is_no_fault_of_ours(error: Exception) -> None:
    with pytest.raises(StepFailed) as raised, Progress().step("write"):
        raise error
    assert not isinstance(raised.value, ExportBroken)


def test_our_own_errors_pass_through_a_step() -> None:
    with pytest.raises(DataInvalid, match=r"^line 1$"), Progress().step("read", reads_input=True):
        raise DataInvalid("line 1")


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


def test_long_work_says_which_share_is_done_and_how_long_the_rest_takes() -> None:
    assert StepAdvanced("score", 0.25, 10.0).left_s == pytest.approx(30)
    stream = Terminal()
    printer = Printer(stream)
    printer(StepStarted("score"))
    printer(StepAdvanced("score", 0.25, 10.0))
    assert stream.getvalue().endswith("\r  ...     score: 25%, about 30 s left")
    printer(StepFinished("score", 40.0, "ok"))
    last = stream.getvalue().rpartition("\r")[2]
    assert last.rstrip() == "  40.0 s  score: ok".rstrip()
    assert len(last) > len("  ...     score: 25%, about 30 s left")  # nothing of the longer line stays


def test_log_file_gets_a_line_about_a_long_step_now_and_then() -> None:
    stream = io.StringIO()
    printer = Printer(stream)
    printer(StepStarted("score"))
    for seconds in range(1, 41):
        printer(StepAdvanced("score", seconds / 40, float(seconds)))
    assert stream.getvalue().splitlines() == [
        "  ...     score: 38%, about 25 s left",
        "  ...     score: 75%, about 10 s left",
    ]


def test_a_step_tells_of_its_work_no_more_often_than_can_be_read() -> None:
    events: list[Event] = []
    with Progress(events.append).step("score") as step:
        for done in range(1, 1001):
            step.advance(done / 1000)
    assert [type(event) for event in events] == [StepStarted, StepFinished]


def test_work_that_is_part_of_more_tells_of_all() -> None:
    told: list[float] = []
    advance = part_of(told.append, 0.5, 0.75)
    advance(0.5)
    advance(1.0)
    assert told == [0.625, 0.75]


def test_warnings_stand_between_the_steps() -> None:
    stream = io.StringIO()
    Progress(Printer(stream)).warn("mind the gap")
    assert stream.getvalue() == "  warning: mind the gap\n"
