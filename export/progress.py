"""What a person sees while an export runs: one line a step, with its duration."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pairwire.server.errors import PairwireError
from pairwire.server.reasons import is_of_the_machine, reason_of

from .errors import ExportBroken, StepFailed


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins."""

    title: str


@dataclass(frozen=True, slots=True)
class StepAdvanced:
    """Part of a long step is done; reported now and then."""

    title: str
    share: float
    """Of the step's work, above 0 and up to 1."""
    seconds: float
    """Since it began."""

    @property
    def left_s(self) -> float:
        """Estimated seconds until the step is done, if the rest goes as fast."""
        return self.seconds * (1 - self.share) / self.share


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The step is done."""

    title: str
    seconds: float
    detail: str
    """One line about what came out; may be empty."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a person should know, though nothing is refused."""

    text: str


_TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_TELL_EVERY_S = 0.5
_LOG_EVERY_S = 15
"""Seconds between lines about a running step, where lines cannot be overwritten."""
Event = StepStarted | StepAdvanced | StepFinished | Warned
Listener = Callable[[Event], None]


Advance = Callable[[float], None]
"""Told by long work which share of it is done, 0 to 1."""


def part_of(advance: Advance, start: float, end: float) -> Advance:
    """For work that is one part of more, from the share ``start`` to the share ``end``."""
    return lambda share: advance(start + (end - start) * share)


def silent(_share: float) -> None:
    """For work that nobody watches."""


class Step:
    """Handle of a running step; ``detail`` is reported when it ends."""

    detail: str = ""

    def __init__(self, title: str, tell: Listener) -> None:
        self._title = title
        self._tell = tell
        self._started = time.perf_counter()
        self._told = self._started

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._started

    def advance(self, share: float) -> None:
        """Says which share of the work is done; reported at most twice a second. May be called from any thread."""
        now = time.perf_counter()
        if 0 < share <= 1 and now - self._told >= _TELL_EVERY_S:
            self._told = now
            self._tell(StepAdvanced(self._title, share, now - self._started))


class Progress:
    """Tells a listener about steps. Without a listener it is silent. ``subject`` is what the steps are about."""

    def __init__(self, listener: Listener | None = None, subject: str = "") -> None:
        self._tell: Listener = listener or (lambda _event: None)
        self._subject = subject

    def warn(self, text: str) -> None:
        """Tells of something that a person should know; between steps, not within one."""
        self._tell(Warned(text))

    @contextlib.contextmanager
    def step(self, title: str, *, reads_input: bool = False) -> Iterator[Step]:
        """One step; nothing is reported as finished where it raises.

        Raises:
            StepFailed: in place of whatever is not an error of Pairwire's own, with the step and the reason.
                `ExportBroken` where the step does not read what the user gave (``reads_input``).
        """
        self._tell(StepStarted(title))
        step = Step(title, self._tell)
        with explained(title, self._subject, reads_input=reads_input):
            yield step
        self._tell(StepFinished(title, step.seconds, step.detail))


@contextlib.contextmanager
def explained(title: str, subject: str = "", *, reads_input: bool = False) -> Iterator[None]:
    """Turns what is not an error of Pairwire's own into a `StepFailed`: no list covers what other libraries raise."""
    try:
        yield
    except (PairwireError, ModuleNotFoundError):
        raise
    except Exception as error:
        sentence = (
            f"{subject}: could not {title}: {reason_of(error)}" if subject else f"could not {title}: {reason_of(error)}"
        )
        if reads_input or is_of_the_machine(error) or isinstance(error, OSError):
            raise StepFailed(sentence) from error
        kind = type(error).__name__
        shown = sentence if kind in sentence else f"{sentence} ({kind})"
        raise ExportBroken(f"{shown}; this was not foreseen: --debug shows where it happened") from error


class Printer:
    """Writes steps to a stream, one line each.

    On a terminal the line of a running step says what is done and how long the rest will take; elsewhere a long step
    has a line for that every ``_LOG_EVERY_S`` seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._width = 0
        self._logged_s = 0.0

    def __call__(self, event: Event) -> None:
        """Writes one event."""
        if isinstance(event, Warned):
            self._stream.write(f"  warning: {event.text}\n")
        elif isinstance(event, StepStarted):
            self._logged_s = 0.0
            if self._live:
                self._over(f"  ...     {event.title}")
        elif isinstance(event, StepAdvanced):
            self._advanced(event)
        else:
            detail = f": {event.detail}" if event.detail else ""
            self._over(f"{event.seconds:6.1f} s  {event.title}{detail}")
            self._stream.write("\n")
            self._width = 0
        self._stream.flush()

    def _advanced(self, event: StepAdvanced) -> None:
        line = f"  ...     {event.title}: {event.share:.0%}, about {event.left_s:.0f} s left"
        if self._live:
            self._over(line)
        elif event.seconds - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = event.seconds
            self._stream.write(f"{line}\n")

    def _over(self, line: str) -> None:
        """Writes a line, on a terminal instead of the one before."""
        self._stream.write(f"{chr(13) if self._width else ''}{line.ljust(self._width)}")
        self._width = len(line) if self._live else 0


@contextlib.contextmanager
def torch_cache(directory: Path) -> Iterator[None]:
    """Where torch makes a directory for what it compiles, as soon as it is imported; else it would stay behind."""
    given = os.environ.get(_TORCH_CACHE)
    os.environ.setdefault(_TORCH_CACHE, str(directory))
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(_TORCH_CACHE, None)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the warnings, logs and progress bars of torch, transformers and optimum away from the screen.

    What a person must know of them is said by Pairwire itself. Errors still raise.
    """
    # Imported here and first: it sets its own log level when it is imported.
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


_LOUD = (
    "accelerate",
    "huggingface_hub",
    "optimum",
    "peft",
    "sentence_transformers",
    "torch",
    "torch.onnx",
    "transformers",
)
