"""Classify: message -> plain values, checked; result -> message; pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from pairwire.v1 import scoring_pb2

from ..config import RequestLimits
from ..engine.outputs.ranking import rank
from ..engine.results import ClassifyOptions, ClassifyResult
from ..engine.text.truncation import Truncation
from ..engine.zero_shot import DEFAULT_TEMPLATE, HypothesisTemplate
from ..errors import InvalidInput
from .caller import caller
from .codec import decode_direction, decode_priority, decode_truncation, encode_timing, encode_usage
from .texts import decode_text, decode_texts


def decode_classify_options(request: scoring_pb2.ClassifyRequest) -> ClassifyOptions:
    """How to classify.

    Raises:
        InvalidInput: a number that an enum does not have.
    """
    return ClassifyOptions(
        hypothesis_template=request.hypothesis_template if request.HasField("hypothesis_template") else None,
        multi_label=request.multi_label,
        truncation=decode_truncation(request) if request.truncation else Truncation.ONLY_FIRST,
        truncation_direction=decode_direction(request),
        max_length=request.max_length or None,
        priority=decode_priority(request),
        caller=caller(),
    )


def decode_classified(
    texts: Sequence[str], labels: Sequence[str], template: str | None, limits: RequestLimits
) -> tuple[list[str], list[str]]:
    """The texts and the candidate labels, which may make many long hypotheses of a short message.

    Raises:
        InvalidInput: none of them, too many together, one that is too long, or a template that cannot be used.
    """
    texts, labels = decode_texts("texts", texts, limits), decode_texts("candidate_labels", labels, limits)
    rows = len(texts) * len(labels)
    if rows > limits.max_items:
        raise InvalidInput(
            "texts",
            f"{len(texts)} with {len(labels)} candidate labels make {rows} pairs, which exceed --max-items "
            f"{limits.max_items}; send several smaller requests",
        )
    template = decode_text("hypothesis_template", DEFAULT_TEMPLATE if template is None else template, limits)
    read = HypothesisTemplate.of(template)
    sizes = [read.size(label) for label in labels]
    for index, size in enumerate(sizes):
        if size > limits.max_text_bytes:
            raise InvalidInput(
                f"candidate_labels[{index}]",
                f"its hypothesis has {size} bytes, which exceed --max-text-bytes {limits.max_text_bytes}; shorten it "
                "or the template",
            )
    if len(texts) * sum(sizes) > limits.max_message_bytes:
        raise InvalidInput(
            "candidate_labels",
            f"hypotheses of {sum(sizes)} bytes for each of {len(texts)} texts exceed --max-message-bytes "
            f"{limits.max_message_bytes}; shorten them, or send several smaller requests",
        )
    return texts, labels


def encode_classification(result: ClassifyResult, labels: Sequence[str]) -> scoring_pb2.ClassifyResponse:
    """The answer to Classify."""
    response = scoring_pb2.ClassifyResponse(
        model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    for scores in result.scores:
        add = response.results.add().labels.add
        for index in rank(scores):
            add(index=index, label=labels[index], score=float(scores[index]))
    return response
