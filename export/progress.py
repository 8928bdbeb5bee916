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
class StepFinished:
    """The step is done."""

    title: str
    seconds: float
    detail: str
    """One line about what came out; may be empty."""


_TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"
Event = StepStarted | StepFinished
Listener = Callable[[Event], None]


class Step:
    """Handle of a running step; ``detail`` is told when it ends."""

    detail: str = ""


class Progress:
    """Tells a listener about steps. Without a listener it is silent. ``subject`` is what the steps are about."""

    def __init__(self, listener: Listener | None = None, subject: str = "") -> None:
        self._tell: Listener = listener or (lambda _event: None)
        self._subject = subject

    @contextlib.contextmanager
    def step(self, title: str, *, reads_input: bool = False) -> Iterator[Step]:
        """One step; nothing is told as finished where it raises.

        Raises:
            StepFailed: in place of whatever is not an error of Pairwire's own, with the step and the reason.
                `ExportBroken` where the step does not read what the user gave (``reads_input``).
        """
        self._tell(StepStarted(title))
        started = time.perf_counter()
        step = Step()
        with explained(title, self._subject, reads_input=reads_input):
            yield step
        self._tell(StepFinished(title, time.perf_counter() - started, step.detail))


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
    """Writes steps to a stream: one line each, filled in when the step ends where the stream is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()

    def __call__(self, event: Event) -> None:
        """Writes one event."""
        if isinstance(event, StepStarted):
            if self._live:
                self._stream.write(f"  ...     {event.title}")
        else:
            detail = f": {event.detail}" if event.detail else ""
            self._stream.write(f"{chr(13) if self._live else ''}{event.seconds:6.1f} s  {event.title}{detail}\n")
        self._stream.flush()


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
