"""What a package says of a sparse encoder (SPLADE): vocabulary, pooling, prompts, from the loaded object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairwire.server.engine.kinds import ModelKind

from ..errors import CheckpointUnsupported
from .bi_encoders import prompts_of

_HEAD = "ForMaskedLM"


def check_plain(directory: Path, architectures: Sequence[object]) -> ModelKind:
    """The kind, where a person asks for a sparse encoder that no file calls one: a language model's own head is pooled.

    Raises:
        CheckpointUnsupported: it is a bi-encoder, or has no such head.
    """
    if (directory / "modules.json").is_file() or not any(str(name).endswith(_HEAD) for name in architectures):
        raise CheckpointUnsupported(
            f"{directory.name}: asked for a sparse encoder; expected one that sentence-transformers saved, or the plain"
            f" checkpoint of a ...{_HEAD}"
        )
    return ModelKind.SPARSE_ENCODER


def describe(reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` that sparse encoders alone have; ``reference`` is the loaded ``SparseEncoder``.

    Raises:
        CheckpointUnsupported: not SPLADE.
    """
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    modules = [type(module).__name__ for module in reference]
    if len(modules) != 2 or not isinstance(reference[1], SpladePooling):
        raise CheckpointUnsupported(
            f"a sparse encoder of {', '.join(modules)}; Pairwire exports a masked language model with SpladePooling"
        )
    if not type(reference[0].model).__name__.endswith(_HEAD):
        raise CheckpointUnsupported(
            f"{type(reference[0].model).__name__} gives no weights of tokens; expected ...{_HEAD}"
        )
    pooling = reference[1]
    return {
        "dimensions": int(reference[0].model.get_output_embeddings().weight.shape[0]),
        "max_active_dims": int(reference.max_active_dims or 0),
        "pooling": [f"splade_{pooling.pooling_strategy}", pooling.activation_function],
        "similarity": str(reference.similarity_fn_name),
        **prompts_of(reference),
    }


def splade(pooling: Any) -> Any:
    """A ``torch.nn.Module`` instead of the library's ``SpladePooling``, that gives the same in fewer passes.

    log(1 + x) grows with x, so the largest logit is found first, and only that goes through the logarithm.
    """
    import torch

    twice = pooling.activation_function == "log1p_relu"

    def saturate(weights: torch.Tensor) -> torch.Tensor:
        weights = weights.relu().log1p()
        return weights.log1p() if twice else weights

    class Splade(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            logits, mask = features["token_embeddings"], features["attention_mask"].unsqueeze(-1)
            logits = logits * mask.to(logits.dtype)
            if pooling.pooling_strategy == "max":
                features["sentence_embedding"] = saturate(logits.amax(dim=1))
            else:
                features["sentence_embedding"] = saturate(logits).sum(dim=1)
            return features

    return Splade()
