"""Why a bulk run ends before it is done.

BulkError
├── InputUnusable   an input is not there, cannot be read, lacks a column, or has changed
├── MixedRun        the output directory belongs to another run: other model, options or inputs; or one is running
├── TooManyErrors   more bad rows than --max-errors
└── OutputFailed    a part cannot be written: the disk is full, no permission
"""

from __future__ import annotations

from typing import Any


class BulkError(Exception):
    """Root of them; ``str(error)`` is a sentence for a person."""


class InputUnusable(BulkError):
    """An input is not there, cannot be read, lacks a column, or has changed."""


class MixedRun(BulkError):
    """The output directory belongs to another run, or to one that is running."""


class TooManyErrors(BulkError):
    """More rows were bad than may be. ``rows`` are those of the part that was under way, as errors.jsonl has them."""

    def __init__(self, message: str, rows: list[dict[str, Any]]) -> None:
        super().__init__(message, rows)
        self.rows = rows

    def __str__(self) -> str:
        return str(self.args[0])


class OutputFailed(BulkError):
    """A part cannot be written."""
