"""What tells tokens apart by their places in the architectures that have no table of positions, or more than one.

Scores stay the same only where no rewrite drops it (`tests.export.models`); here, that they would change without it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pairwire.export.progress import quiet_libraries
from tests import checkpoints

FELT = 0.01
"""A thousand times what a float32 graph may be off."""


def logits(directory: Path, change: Callable[[Any], None], **config: object) -> npt.NDArray[np.float32]:
    """Of the pairs, by a model that was changed after it was loaded."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with quiet_libraries():
        model = AutoModelForSequenceClassification.from_pretrained(directory, **config).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
    firsts, seconds = zip(*checkpoints.PAIRS, strict=True)
    change(model)
    with torch.no_grad():
        rows = tokenizer(list(firsts), list(seconds), padding=True, return_tensors="pt")
        return np.asarray(model(**rows).logits)


def without(name: str) -> Callable[[Any], None]:
    """Sets the weights of that name to zero."""

    def change(model: Any) -> None:
        (found,) = [parameter for key, parameter in model.named_parameters() if key.endswith(name)]
        found.data.zero_()

    return change


@pytest.mark.parametrize(
    ("architecture", "change", "config"),
    [
        ("mpnet", without("relative_attention_bias.weight"), {}),
        ("deberta-v2", without("rel_embeddings.weight"), {}),
        ("deberta-v3", without("rel_embeddings.weight"), {}),
        ("modernbert", lambda model: None, {"local_attention": 256}),
        ("modernbert-mean", lambda model: None, {"global_rope_theta": 1e12}),
    ],
)
def test_scores_depend_on_distances_and_windows(
    architecture: str, change: Callable[[Any], None], config: dict[str, object], tmp_path: Path
) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / architecture, architecture=architecture)
    difference = logits(directory, lambda model: None) - logits(directory, change, **config)
    assert np.abs(difference).max() > FELT
