"""Parameters of a KServe v2 request -> options of the engine, for gRPC and for REST; pure functions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..engine.batching.priority import Priority
from ..engine.outputs.heads import Activation
from ..engine.results import EmbedOptions, ScoreOptions, SparseOptions
from ..engine.text.truncation import Truncation, TruncationDirection
from ..errors import InvalidInput, Unsupported
from ..rpc.caller import caller

Value = bool | int | float | str
T = TypeVar("T")

PRIORITIES = (Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""By Triton's number: 0 stands for the default, 1 is the highest."""
KNOWN = (
    "priority",
    "timeout",
    "truncation",
    "truncation_direction",
    "max_length",
    "top_k",
    "prompt_name",
    "prompt",
    "activation",
    "dimensions",
    "normalize",
    "max_active_dims",
)
_IGNORED = ("binary_data_output", "content_type", "headers")
"""Set by some clients of their own accord; they mean nothing here."""
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request, each looked at when it is asked for."""

    given: Mapping[str, Value]

    def check(self) -> None:
        """Refuses what nobody would look at.

        Raises:
            InvalidInput: a name that there is none of.
            Unsupported: a sequence.
        """
        for name, value in self.given.items():
            if name in KNOWN or name in _IGNORED or name.startswith("triton_"):
                continue
            if name in _SEQUENCE:
                if value:
                    raise Unsupported(f"parameters.{name}: sequences are for models with state, of which there is none")
                continue
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(KNOWN)}"
            raise InvalidInput(f"parameters.{name}", f"unknown; {hint}")

    def timeout_s(self, left: float | None) -> float | None:
        """Seconds for the answer: the smaller of ``left`` and ``timeout``, which is in microseconds; 0 sets none."""
        own = self.whole("timeout", 0)
        if not own:
            return left
        return own / 1e6 if left is None else min(left, own / 1e6)

    def top_k(self) -> int | None:
        """How many places ``rank`` has; None for all."""
        return self.whole("top_k", 1) if "top_k" in self.given else None

    def score_options(self, truncation: Truncation) -> ScoreOptions:
        """How to score; ``truncation`` is the default."""
        return ScoreOptions(**self._reading(truncation), activation=self._choice("activation", Activation, None))

    def embed_options(self, truncation: Truncation) -> EmbedOptions:
        """How to embed."""
        normalize = self.given.get("normalize")
        if normalize is not None and not isinstance(normalize, bool):
            raise InvalidInput("parameters.normalize", f"expected a boolean, got {normalize!r}")
        dimensions = self.whole("dimensions", 1) if "dimensions" in self.given else None
        return EmbedOptions(**self._reading(truncation), normalize=normalize, dimensions=dimensions)

    def sparse_options(self, truncation: Truncation) -> SparseOptions:
        """How to embed sparsely."""
        most = self.whole("max_active_dims", 1) if "max_active_dims" in self.given else None
        return SparseOptions(**self._reading(truncation), max_active_dims=most)

    def prompt(self) -> str:
        """The prompt as text; empty for none."""
        return self._text("prompt") or ""

    def whole(self, name: str, least: int) -> int:
        """A whole number; 0 where it is not given."""
        value = self.given.get(name, 0)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(f"parameters.{name}", f"expected a whole number, got {value!r}")
        if value < least and name in self.given:
            raise InvalidInput(f"parameters.{name}", f"{value} is less than {least}")
        return value

    def _reading(self, truncation: Truncation) -> dict[str, Any]:
        return {
            "prompt_name": self._text("prompt_name"),
            "prompt": self._text("prompt"),
            "truncation": self._choice("truncation", Truncation, truncation),
            "truncation_direction": self._choice("truncation_direction", TruncationDirection, None),
            "max_length": self.whole("max_length", 0) or None,
            "priority": self._priority(),
            "caller": caller(),
        }

    def _priority(self) -> Priority:
        value = self.given.get("priority", 0)
        if isinstance(value, str) and not value.isdecimal():
            return Priority(self._choice("priority", Priority, Priority.NORMAL))
        return PRIORITIES[min(self.whole("priority", 0), len(PRIORITIES) - 1)]

    def _text(self, name: str) -> str | None:
        value = self.given.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"parameters.{name}", f"expected a string, got {value!r}")
        return value

    def _choice(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self.given.get(name)
        if value is None:
            return default
        known = [each.value for each in kind]
        if value not in known:
            raise InvalidInput(f"parameters.{name}", f"{value!r} is none of {', '.join(known)}")
        return kind(value)
