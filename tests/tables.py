"""Tiny encoders without a transformer, as sentence-transformers and as model2vec save them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests import architectures

DIMENSIONS = 32
ROWS = 1100
"""More than the tokenizer has tokens, and enough for int8 to take a table for one."""


def save_static(
    directory: Path,
    *,
    pieces: str = "bert",
    after: Sequence[Any] = (),
    truncate_dim: int | None = None,
    prompts: Mapping[str, str] | None = None,
    most_tokens: int | None = None,
    seed: int = 0,
) -> Path:
    """Writes a ``SentenceTransformer`` of a StaticEmbedding and modules ``after`` it, and returns its directory.

    ``pieces`` names whose tokenizer it has (`tests.architectures`), with its special tokens, which nobody asks for;
    ``most_tokens`` is where that tokenizer cuts.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = architectures.tokenizer(pieces).backend_tokenizer
    tokenizer.no_truncation()
    if most_tokens is not None:
        tokenizer.enable_truncation(most_tokens)
    modules = [StaticEmbedding(tokenizer, embedding_weights=table(seed)), *after]
    encoder = SentenceTransformer(
        modules=modules, device="cpu", truncate_dim=truncate_dim, prompts=dict(prompts) if prompts else None
    )
    encoder.save(str(directory), create_model_card=False)
    return directory


def save_potion(
    directory: Path, *, normalize: bool = True, clusters: int | None = None, dtype: str = "float32", seed: int = 0
) -> Path:
    """Writes what ``model2vec.StaticModel.save_pretrained`` does, and returns the directory.

    With ``clusters`` the vocabulary is quantised: tokens share this many rows, and each has a weight of its own.
    """
    from safetensors.numpy import save_file

    directory.mkdir()
    rows = table(seed)
    tensors = {"embeddings": rows}
    if clusters is not None:
        random = np.random.default_rng(seed)
        tensors = {
            "embeddings": rows[:clusters],
            "mapping": random.integers(0, clusters, len(rows)),
            "weights": random.uniform(0.2, 2, len(rows)).astype(np.float32),
        }
    if dtype == "int8":  # as model2vec does: the largest number becomes 127, and nothing says what it was
        scale = np.abs(tensors["embeddings"]).max() / 127
        tensors["embeddings"] = np.round(tensors["embeddings"] / scale)
    tensors["embeddings"] = tensors["embeddings"].astype(dtype)
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, directory / "model.safetensors")
    architectures.tokenizer("bert").backend_tokenizer.save(str(directory / "tokenizer.json"))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize}
    (directory / "config.json").write_text(json.dumps(config))
    modules = [{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
    if normalize:
        norm = {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}
        modules.append(norm)
    (directory / "modules.json").write_text(json.dumps(modules))
    return directory


def table(seed: int = 0) -> Any:
    """float32 [ROWS, DIMENSIONS]."""
    return np.random.default_rng(seed).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
