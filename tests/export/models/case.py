"""What a row of docs/models.md is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pairwire.export.config import AskedScore

Make = Callable[[Path], object]
"""Writes a checkpoint into a directory that does not exist yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A checkpoint that is exported."""

    model: str
    """The architecture, and checkpoints that are known by it."""
    task: str
    make: Make
    passes: Mapping[str, int]
    """How many places each pass for a CPU rewrites, quantize_matmul (of int8) included."""
    half: Mapping[str, int] | str
    """The same of fp16; or, where that is refused, a pattern of the reason behind "... has no fp16 variant: "."""
    precisions: tuple[str, ...] = field(default=("fp32", "int8"))
    """Beside fp16."""
    asked: AskedScore = field(default_factory=AskedScore)
    """What is asked to be made of its scores."""
    newest: bool = False
    """Whether it is exported on the newest transformers too, each time (`make test-next`)."""

    @property
    def name(self) -> str:
        """As a test calls it."""
        return f"{self.model.split(' (')[0]}, {self.task}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A checkpoint that is not exported."""

    what: str
    make: Make
    reason: str
    """A part of what the export says."""
    trusted: bool = False
    """Whether it is exported with --trust-remote-code."""
    newest: bool = True
    """Whether the newest transformers refuses it too."""
