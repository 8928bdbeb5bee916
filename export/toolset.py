"""Which libraries of the exporter are installed, and what they can export. Looks at versions; imports none of them.

There are two sets: transformers 4.57 with optimum-onnx, and transformers 5 without it. Packages of either are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

NEEDED = ("torch", "transformers", "sentence-transformers", "onnx")
OPTIONAL = ("optimum-onnx", "onnxscript")
NEWER = "pip install -U 'pairwire[export]' 'transformers>=5' 'sentence-transformers>=6'"
"""What makes the second set of the first, once optimum-onnx is gone."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """Installed versions, by name."""

    versions: dict[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether anything can be exported."""
        return not self._missing

    @property
    def problem(self) -> str:
        """Why the installed versions do not fit together; empty where they do, or where none is there."""
        if self.major("transformers") >= 5 and "optimum-onnx" in self.versions:
            return (
                f"optimum-onnx {self.versions['optimum-onnx']} cannot be used with transformers"
                f" {self.versions['transformers']}"
            )
        return ""

    @property
    def can(self) -> str:
        """What is exported, in words."""
        if not self.is_complete:
            missing = f", {' and '.join(self._missing)} missing" if len(self._missing) < len(NEEDED) else ""
            return f"nothing{missing}: pip install 'pairwire[export]'"
        tracers = [
            name for name, tool in (("optimum", "optimum-onnx"), ("torch.export", "onnxscript")) if self._has(tool)
        ]
        of = "4 and 5" if self.major("transformers") >= 5 else "4, and of transformers 5 where this release reads them"
        return f"checkpoints of transformers {of}, traced by {', '.join(['torch.jit.trace', *tracers])}"

    def major(self, name: str) -> int:
        """Of a version; 0 where it is not installed."""
        head = self.versions.get(name, "0").partition(".")[0]
        return int(head) if head.isdigit() else 0

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {self.versions[name]}" for name in (*NEEDED, *OPTIONAL) if self._has(name))
        return f"{shown}; {self.can}" if shown else self.can

    @property
    def _missing(self) -> list[str]:
        return [name for name in NEEDED if not self._has(name)]

    def _has(self, name: str) -> bool:
        return name in self.versions


def look(version_of: Callable[[str], str] = metadata.version) -> Toolset:
    """What is installed here."""
    versions = {}
    for name in (*NEEDED, *OPTIONAL):
        try:
            versions[name] = version_of(name)
        except metadata.PackageNotFoundError:
            continue
    return Toolset(versions)
