"""The client's options -> the engine's: the same names, checked, as the engine's own values."""

from __future__ import annotations

from typing import Any

from pairwire.client.inputs import EmbedOptions, ReadingOptions, ScoreOptions, SparseOptions
from pairwire.client.zero_shot import ClassifyOptions
from pairwire.server.engine import kinds, results
from pairwire.server.engine.batching import priority
from pairwire.server.engine.outputs import heads
from pairwire.server.engine.text import truncation


def _reading(options: ReadingOptions) -> dict[str, Any]:
    """The fields of the engine's `ReadingOptions`."""
    direction = options.truncation_direction
    return {
        "prompt_name": options.prompt_name,
        "prompt": options.prompt,
        "truncation": truncation.Truncation(options.truncation or "longest_first"),
        "truncation_direction": direction and truncation.TruncationDirection(direction),
        "max_length": options.max_length,
        "priority": priority.Priority(options.priority or "normal"),
    }


def score_options(options: ScoreOptions) -> results.ScoreOptions:
    """For cross-encoders."""
    activation = heads.Activation(options.activation) if options.activation else None
    return results.ScoreOptions(**_reading(options), activation=activation)


def classify_options(options: ClassifyOptions) -> results.ClassifyOptions:
    """For cross-encoders that know entailment."""
    reading = {
        **_reading(options),
        "prompt": "",
        "truncation": truncation.Truncation(options.truncation or "only_first"),
    }
    return results.ClassifyOptions(
        **reading, hypothesis_template=options.hypothesis_template, multi_label=options.multi_label
    )


def embed_options(options: EmbedOptions) -> results.EmbedOptions:
    """For bi-encoders; the encoding is not among them."""
    return results.EmbedOptions(**_reading(options), dimensions=options.dimensions, normalize=options.normalize)


def sparse_options(options: SparseOptions) -> results.SparseOptions:
    """For sparse encoders."""
    input_type = kinds.InputType(options.input_type) if options.input_type else None
    return results.SparseOptions(**_reading(options), max_active_dims=options.max_active_dims, input_type=input_type)
