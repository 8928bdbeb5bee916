"""Cross-encoder checkpoints as large as known ones, vocabulary included, with random weights and made-up pieces.

What an export of them takes, and what a pair costs, is real; what they say is not. Nothing is downloaded: see `pieces`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pieces import make_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class FullSize:
    """A model that people use."""

    family: str
    """transformers' model type."""
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    """Rows of the position table, or how far rotary positions reach."""
    max_length: int
    """Tokens."""
    rest: Mapping[str, object] = field(default_factory=dict)
    """Of its configuration, what no other family has."""


def _bert(hidden: int, layers: int, heads: int) -> FullSize:
    return FullSize(
        family="bert",
        vocabulary=30_522,
        hidden=hidden,
        layers=layers,
        heads=heads,
        intermediate=4 * hidden,
        positions=512,
        max_length=512,
    )


def _xlm_r(hidden: int, layers: int, heads: int, *, positions: int) -> FullSize:
    return FullSize(
        family="xlm-roberta",
        vocabulary=250_002,
        hidden=hidden,
        layers=layers,
        heads=heads,
        intermediate=4 * hidden,
        positions=positions,
        max_length=positions - 2,
        rest={"type_vocab_size": 1},
    )


FULL_SIZES: Mapping[str, FullSize] = {
    "tinybert-l2": _bert(128, 2, 2),
    "minilm-l6": _bert(384, 6, 12),
    "minilm-l12": _bert(384, 12, 12),
    "bert-base": _bert(768, 12, 12),
    "modernbert-base": FullSize(
        family="modernbert",
        vocabulary=50_368,
        hidden=768,
        layers=22,
        heads=12,
        intermediate=1152,
        positions=8192,
        max_length=512,
        rest={"global_attn_every_n_layers": 3, "local_attention": 128, "reference_compile": False},
    ),
    "xlm-r-base": _xlm_r(768, 12, 12, positions=514),
    "deberta-v3-small": FullSize(
        family="deberta-v2",
        vocabulary=128_100,
        hidden=768,
        layers=6,
        heads=12,
        intermediate=3072,
        positions=512,
        max_length=512,
        rest={
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "qwen3-0.6b": FullSize(
        family="qwen3",
        vocabulary=151_936,
        hidden=1024,
        layers=28,
        heads=16,
        intermediate=3072,
        positions=40_960,
        max_length=512,
        rest={"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
    ),
    "xlm-r-large": _xlm_r(1024, 24, 16, positions=8194),
}
"""ms-marco-TinyBERT-L2, -MiniLM-L6 and -L12, bert-base-uncased (110 M parameters), ModernBERT-base (150 M),
bge-reranker-base (278 M), deberta-v3-small (141 M), Qwen3-Reranker-0.6B (596 M), and bge-reranker-v2-m3 (568 M)."""


def save_full_size(shape: FullSize, directory: Path, vocabulary: Path | None = None) -> int:
    """Writes the checkpoint, with one label, and returns how many parameters it has.

    ``vocabulary`` is a tokenizer.json of BERT's, instead of made-up pieces. A language model answers "yes" or "no".
    """
    import torch

    transformers: Any = importlib.import_module("transformers")  # which is half typed
    tokenizer = make_tokenizer(shape.family, shape.vocabulary, shape.max_length, vocabulary)
    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.positions,
        "num_labels": 1,
        **{
            f"{role}_token_id": getattr(tokenizer, f"{role}_token_id")
            for role in ("pad", "bos", "eos", "cls", "sep")
            if getattr(tokenizer, f"{role}_token", None) is not None
        },
        **shape.rest,
    }
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(shape.family, **common)
    decoder = shape.family == "qwen3"
    kind = transformers.AutoModelForCausalLM if decoder else transformers.AutoModelForSequenceClassification
    model = kind.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return int(model.num_parameters())
