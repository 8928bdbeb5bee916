"""Zero-shot classification: does a text imply "This example is <label>."? Labels that nobody trained a model for.

A cross-encoder that has learnt natural language inference (NLI) says whether a premise implies a hypothesis. Each text
is a premise, and each candidate label makes a hypothesis by way of a template. What the model says of entailment
becomes the label's score (`outputs.nli`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from ..errors import InvalidInput
from .call import Accept, Calls, Pairs
from .models.model import Model
from .outputs.heads import Activation
from .outputs.nli import NliLogits
from .results import ClassifyOptions, ClassifyResult, ReadingOptions, ScoreOptions, Usage
from .text.given import listed
from .text.token_ids import Text, check_texts

DEFAULT_TEMPLATE = "This example is {}."
"""That of transformers' pipeline."""

_PLACES = ("{}", "{0}")
_OF_ROW = re.compile(r"(texts|candidate_labels)\[(\d+)\](.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HypothesisTemplate:
    """A sentence with a place for the label: ``{}``, or ``{0}`` once or more; ``{{`` and ``}}`` are braces.

    Of Python's format strings nothing else is taken: a template comes from whoever sends the request.
    """

    parts: tuple[str, ...]
    """What stands between the places."""

    @classmethod
    def of(cls, template: str) -> HypothesisTemplate:
        """Reads a template.

        Raises:
            InvalidInput: it has no place for the label, or something else in braces.
        """
        if not isinstance(template, str):
            raise _wrong(f"expected text with {{}} in it, got {type(template).__name__}")
        parts, places = [""], []
        try:
            for literal, field, spec, conversion in Formatter().parse(template):
                parts[-1] += literal
                if field is not None:
                    shown = f"{{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
                    places.append(shown)
                    parts.append("")
        except ValueError as error:
            raise _wrong(f"{_short(template)} cannot be read ({error}); write {{{{ and }}}} for braces") from None
        if not places:
            raise _wrong(f"{_short(template)} has no place for the label; put {{}} there, as in {DEFAULT_TEMPLATE!r}")
        if odd := [place for place in places if place not in _PLACES]:
            raise _wrong(f"{_short(odd[0])} is no place for the label; write {{}}, and {{{{ and }}}} for braces")
        if len(places) > 1 and "{}" in places:
            raise _wrong(f"{_short(template)} has {len(places)} places; write {{0}} for a label that comes twice")
        return cls(tuple(parts))

    def render(self, label: str) -> str:
        """The hypothesis of a label."""
        return label.join(self.parts)

    def size(self, label: str) -> int:
        """Bytes of UTF-8 that ``render`` would give."""
        literal = sum(len(part.encode("utf-8", "surrogatepass")) for part in self.parts)
        return literal + (len(self.parts) - 1) * len(label.encode("utf-8", "surrogatepass"))


async def classify(
    calls: Calls,
    classifier: tuple[Model, NliLogits],
    texts: Sequence[Text],
    candidate_labels: Sequence[str],
    options: ClassifyOptions,
    timeout_s: float | None,
    accept: Accept,
) -> ClassifyResult:
    """Scores of each label for each text; see ``Engine.classify``."""
    model, logits = classifier
    texts, labels = listed("texts", texts), listed("candidate_labels", candidate_labels)
    asked = hypotheses(labels, options.hypothesis_template)
    rows = Pairs(
        field="texts",
        firsts=[text for text in texts for _ in asked],
        seconds=asked * len(texts),
        fields=("texts[{}]", "candidate_labels[{}]"),
    )
    try:
        found = await calls.score(model, rows, _score_options(options), timeout_s, accept)
    except InvalidInput as error:
        raise _of_request(error, len(labels)) from None
    return ClassifyResult(
        scores=logits.probabilities(found.scores.reshape(len(texts), len(labels), -1), multi_label=options.multi_label),
        model=found.model,
        usage=_usage(found.usage, len(labels)),
        timing=found.timing,
    )


def hypotheses(labels: Sequence[str], template: str | None) -> list[str]:
    """What is asked of a text, for each label.

    Raises:
        InvalidInput: no label, one that is no text, or a template that cannot be used.
    """
    _check_labels(labels)
    read = HypothesisTemplate.of(DEFAULT_TEMPLATE if template is None else template)
    return [read.render(label) for label in labels]


def _score_options(options: ClassifyOptions) -> ScoreOptions:
    """How the pairs of a classification are scored."""
    reading = {name: getattr(options, name) for name in ReadingOptions.__dataclass_fields__}
    return ScoreOptions(**reading, activation=Activation.IDENTITY)


def _check_labels(labels: Sequence[str]) -> None:
    """Raises InvalidInput: no label, or one that is no text or empty."""
    if not labels:
        raise InvalidInput("candidate_labels", "empty; give at least one label")
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise InvalidInput(f"candidate_labels[{index}]", f"expected text (str), got {type(label).__name__}")
        if not label.strip():
            raise InvalidInput(f"candidate_labels[{index}]", "empty; give a word or a phrase, or leave it out")
    check_texts(labels, "candidate_labels[{}]")


def _of_request(error: InvalidInput, labels: int) -> InvalidInput:
    """The error of a row, in the terms of whoever asked: rows are each text with each of its ``labels``."""
    found = _OF_ROW.fullmatch(error.field)
    if found is None:
        return error
    name, row, rest = found[1], int(found[2]), found[3]
    if name == "texts":
        return InvalidInput(f"texts[{row // labels}]{rest}", error.reason)
    return InvalidInput(f"{name}[{row % labels}]{rest}", f"{error.reason} (it is read with texts[{row // labels}])")


def _usage(usage: Usage, labels: int) -> Usage:
    """The usage of a request whose every text makes as many rows as there are ``labels``."""
    cut = sorted({row // labels for row in usage.truncated_inputs})
    return Usage(usage.tokens, usage.padded_tokens, tuple(cut))


def _wrong(reason: str) -> InvalidInput:
    return InvalidInput("hypothesis_template", reason)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
