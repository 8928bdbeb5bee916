"""Why an export did not make a package. Part of the one tree of errors (`pairwire.server.errors.PairwireError`).

ExportError
├── CheckpointNotFound     no such directory, hub id or base of an adapter; or the hub cannot be reached
├── CheckpointUnsupported  found, but of a kind that Pairwire does not export (yet): says which part, and why
│   ├── ConsentMissing     it asks for Python code to be run, and --trust-remote-code was not given
│   └── WeightsInvalid     tensors are missing, of another shape, left over, or not finite: says which
├── OutputInvalid          the target directory exists, or cannot be written
├── MemoryShort            the checkpoint's export would not fit into memory
├── DataInvalid            the user's calibration or parity file
├── StepFailed             a library or the machine failed in a step: which step, and their own reason
│   └── ExportBroken       ... and neither the checkpoint nor the machine explains it
└── ParityFailed           the graph does not score like the checkpoint; carries the report

Example::

    try:
        export_checkpoint(ExportConfig(checkpoint="./mine", output=Path("models/mine")))
    except ParityFailed as error:
        print(error.report.failures)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairwire.server.errors import PairwireError

if TYPE_CHECKING:
    from .figures import ParityReport


class ExportError(PairwireError):
    """An export that made no package; the sentence says what to change. Nothing is left on disk."""


class CheckpointNotFound(ExportError):
    """The checkpoint, or the base of an adapter, is neither a directory nor to be had from the hub."""


class CheckpointUnsupported(ExportError):
    """The checkpoint has a part that Pairwire cannot serve exactly."""


class ConsentMissing(CheckpointUnsupported):
    """The checkpoint, or the base of an adapter, asks for Python code to be run, and nobody has agreed to that."""


class WeightsInvalid(CheckpointUnsupported):
    """The weights are not those of the model that the configuration describes; it would run on random numbers."""


class OutputInvalid(ExportError):
    """The target directory exists already, or cannot be written."""


class MemoryShort(ExportError):
    """The export would take more memory than there is. It was not started."""


class DataInvalid(ExportError):
    """A file of calibration or parity texts that cannot be read."""


class StepFailed(ExportError):
    """A step of the export failed: a library does not read this checkpoint, or the disk or the memory is full."""


class ExportBroken(StepFailed):
    """A step that reads nothing of the user's failed: a fault of Pairwire's, or of a library's."""


class ParityFailed(ExportError):
    """A variant is further from the checkpoint than its limit. ``report`` has the figures of all variants."""

    def __init__(self, message: str, report: ParityReport) -> None:
        super().__init__(message)
        self.report = report
