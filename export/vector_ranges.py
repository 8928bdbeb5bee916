"""How large the numbers of a bi-encoder's vectors get: what they are made int8 by, when a caller asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairwire.server.engine.first_stage import DOCUMENT_PROMPTS, QUERY_PROMPTS
from pairwire.server.runtime.base import Float32Array

from .checkpoint.checkpoint import Checkpoint
from .texts import Texts

_BATCH = 8


@dataclass(frozen=True, slots=True)
class Ranges:
    """Smallest and largest number of each dimension, float32 [dimensions] each."""

    low: Float32Array
    high: Float32Array


def measure_ranges(checkpoint: Checkpoint, texts: Texts) -> Ranges:
    """Of whole vectors of the texts, with the default prompt and with those of queries and documents.

    Embedded by sentence-transformers on the checkpoint; its ``quantize_embeddings`` calls them ``ranges``.
    """
    inputs = [item[0] for item in texts.inputs]
    parts = [_embed(checkpoint, inputs, prompt) for prompt in range_prompts(checkpoint)]
    return Ranges(
        np.min([part.min(axis=0) for part in parts], axis=0), np.max([part.max(axis=0) for part in parts], axis=0)
    )


def range_prompts(checkpoint: Checkpoint) -> list[str]:
    """The prompts that texts are measured with, each distinct one once."""
    named = [checkpoint.prompts[name] for name in (*QUERY_PROMPTS, *DOCUMENT_PROMPTS) if name in checkpoint.prompts]
    return list(dict.fromkeys([checkpoint.default_prompt, *named]))


def _embed(checkpoint: Checkpoint, texts: Sequence[str], prompt: str) -> Float32Array:
    vectors = checkpoint.reference.encode(
        list(texts),
        prompt=prompt,
        batch_size=_BATCH,
        show_progress_bar=False,
        truncate_dim=checkpoint.dimensions,
    )
    return np.asarray(vectors, dtype=np.float32)
