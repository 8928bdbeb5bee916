"""Zero-shot classification: what the caller may say, and what it gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from .errors import InvalidInput
from .inputs import ReadingOptions, utf8_bytes
from .results import Float32Array, Timing, Usage, check_same, merge_timing, merge_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions(ReadingOptions):
    """How texts are read and classified. Errors as `ReadingOptions`.

    ``truncation`` None is only_first here: the text is cut, and the hypothesis is not. There are no prompts.
    """

    hypothesis_template: str | None = None
    """A sentence with ``{}`` where the label goes; None means "This example is {}."."""
    multi_label: bool = False
    """Judge each label by itself, so that several may be true; else the scores of a text add up to 1."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        if self.prompt is not None or self.prompt_name is not None:
            raise InvalidInput.at("prompt", "classification has none; say it in hypothesis_template")
        if self.hypothesis_template is not None:
            utf8_bytes("hypothesis_template", self.hypothesis_template)
        if not isinstance(self.multi_label, bool | np.bool_):
            raise InvalidInput.at("multi_label", f"expected True or False, got {type(self.multi_label).__name__}")


@dataclass(frozen=True, slots=True)
class Classification:
    """The candidate labels of one text, best first, equal scores in the order given."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    """Of ``labels``, each from 0 to 1."""

    @property
    def best(self) -> str:
        """The label with the highest score."""
        return self.labels[0]


@dataclass(frozen=True, slots=True, eq=False)
class ClassifyResult(Sequence[Classification]):
    """What was found of each text, in input order; a sequence of it."""

    scores: Float32Array
    """[texts, candidate labels], in the order in which both were given."""
    labels: tuple[str, ...]
    """The candidate labels."""
    model: str
    usage: Usage
    timing: Timing

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> Classification: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Classification, ...]: ...
    def __getitem__(self, index: int | slice) -> Classification | tuple[Classification, ...]:
        if isinstance(index, slice):
            return tuple(self._of(row) for row in self.scores[index])
        return self._of(self.scores[index])

    def __iter__(self) -> Iterator[Classification]:
        return map(self._of, self.scores)

    def best_labels(self) -> list[str]:
        """The label with the highest score of each text; of equal ones the first."""
        return [self.labels[best] for best in self.scores.argmax(axis=1)]

    def _of(self, scores: Float32Array) -> Classification:
        order = np.argsort(-scores, kind="stable")
        return Classification(tuple(self.labels[at] for at in order), tuple(scores[order].tolist()))


def merge_classified(parts: Sequence[ClassifyResult]) -> ClassifyResult:
    """One result of the parts of one input, in order.

    Raises:
        ServerFault: the parts come from different models.
    """
    if len(parts) == 1:
        return parts[0]
    check_same([part.model for part in parts])
    return ClassifyResult(
        scores=np.concatenate([part.scores for part in parts]),
        labels=parts[0].labels,
        model=parts[0].model,
        usage=merge_usage([part.usage for part in parts]),
        timing=merge_timing([part.timing for part in parts]),
    )
