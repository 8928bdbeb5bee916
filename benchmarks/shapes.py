"""Checkpoints with the shape of a known model and random weights: what they cost is real, what they say is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a BERT."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


SHAPES: Mapping[str, Shape] = {
    "tinybert-l2": Shape(hidden=128, layers=2, heads=2, intermediate=512),
    "minilm-l6": Shape(hidden=384, layers=6, heads=12, intermediate=1536),
}
"""By the name of the model that has it."""


def save_shape(shape: Shape, tokenizer_file: Path, directory: Path) -> Path:
    """Writes a cross-encoder checkpoint of that shape, reading 512 tokens, with BERT's kind of tokenizer.json."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers is half typed
        tokenizer_file=str(tokenizer_file),
        model_max_length=512,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    )
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=512,
        num_labels=1,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(directory)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(directory)
    return directory
