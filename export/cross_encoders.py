"""What a package says of a cross-encoder: labels and activation, from the loaded object and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pairwire.server.engine.heads import Activation

from .errors import CheckpointUnsupported
from .source import read_json

_ACTIVATIONS = {"Identity": Activation.IDENTITY, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}


def describe(directory: Path, reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` that cross-encoders alone have; ``reference`` is the loaded ``CrossEncoder``.

    Raises:
        CheckpointUnsupported: something that the server does not compute.
    """
    return {"labels": _labels(reference[0]), "activation": _activation(directory, reference)}


def _labels(transformer: Any) -> list[str]:
    config = transformer.config
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    return [names.get(index, f"LABEL_{index}") for index in range(int(config.num_labels))]


def _activation(directory: Path, reference: Any) -> Activation:
    """The activation that sentence-transformers resolved, if it is one that the server computes."""
    named = _named_activation(directory)
    function = reference.activation_fn
    activation = _ACTIVATIONS.get(type(function).__name__)
    if named is not None and not named.startswith("torch."):
        raise CheckpointUnsupported(
            f"its activation is {named}; Pairwire computes Identity, Sigmoid and Softmax of torch"
        )
    if activation is None or not type(function).__module__.startswith("torch."):
        raise CheckpointUnsupported(
            f"its activation is {type(function).__name__}; Pairwire computes Identity, Sigmoid and Softmax"
        )
    if activation is Activation.SOFTMAX and function.dim not in (None, 1, -1):
        raise CheckpointUnsupported(f"its activation is a Softmax over axis {function.dim}; expected the labels' axis")
    if reference.default_prompt_name and reference.prompts.get(reference.default_prompt_name):
        raise CheckpointUnsupported("a cross-encoder with a default prompt is not exported yet")
    return activation


def _named_activation(directory: Path) -> str | None:
    config = read_json(directory / "config.json")
    nested = config.get("sentence_transformers")
    beside = "config_sentence_transformers.json"  # which the library reads only where there is a modules.json
    names = [
        read_json(directory / beside).get("activation_fn") if (directory / "modules.json").is_file() else None,
        nested.get("activation_fn") if isinstance(nested, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    ]
    return next((str(name) for name in names if name), None)
