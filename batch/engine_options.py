"""The client's options -> the engine's: the same names, checked, as the engine's own values."""

from __future__ import annotations

from typing import Any

from pairwire.client.inputs import EmbedOptions, ReadingOptions, ScoreOptions, SparseOptions
from pairwire.server.engine import results
from pairwire.server.engine.batching import priority
from pairwire.server.engine.outputs import heads
from pairwire.server.engine.text import truncation


def _reading(options: ReadingOptions) -> dict[str, Any]:
    """The fields of the engine's `ReadingOptions`."""
    return {
        "prompt_name": options.prompt_name,
        "prompt": options.prompt,
        "truncation": truncation.Truncation(options.truncation or "longest_first"),
        "max_length": options.max_length,
        "priority": priority.Priority(options.priority or "normal"),
    }


def score_options(options: ScoreOptions) -> results.ScoreOptions:
    """For cross-encoders."""
    activation = heads.Activation(options.activation) if options.activation else None
    return results.ScoreOptions(**_reading(options), activation=activation)


def embed_options(options: EmbedOptions) -> results.EmbedOptions:
    """For bi-encoders; the encoding is not among them."""
    return results.EmbedOptions(**_reading(options), dimensions=options.dimensions, normalize=options.normalize)


def sparse_options(options: SparseOptions) -> results.SparseOptions:
    """For sparse encoders."""
    return results.SparseOptions(**_reading(options), max_active_dims=options.max_active_dims)
