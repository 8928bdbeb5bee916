"""Encoders without a transformer: a text's vector is the mean of a table's rows (StaticEmbedding, model2vec's potions).

Such a tokenizer puts nothing around a text, so an empty text has no token and a vector of zeros. What is exported has
one row more than the table, of zeros, which stands for it: no row of a batch is ever empty.

model2vec may store a table in parts (16 or 8 bits; rows that several tokens share; a weight for each token). They are
put together when the table is read, as model2vec itself and later releases of sentence-transformers do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from pairwire.server.engine.text.rules import TextRules

from ..errors import CheckpointUnsupported
from .tracing import Traceable

ARCHITECTURE = "static"
"""In place of transformers' model type."""
MOST_TOKENS = 8192
"""Of a text, where neither the tokenizer nor a person says how many: the library has no limit."""
_VECTOR = "sentence_embedding"
_IDS, _MASK = "input_ids", "attention_mask"
_WHOLE, _ROWS, _MAPPING, _WEIGHTS = "embedding.weight", "embeddings", "mapping", "weights"


def is_static(reference: Any) -> bool:
    """Whether the first module of a ``SentenceTransformer`` is a table."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return isinstance(reference[0], StaticEmbedding)


@contextmanager
def whole_tables() -> Iterator[None]:
    """While it is in force, StaticEmbedding reads tables of model2vec that are stored in parts."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    family: Any = StaticEmbedding
    read = family.load_torch_weights

    def read_whole(*args: Any, **options: Any) -> dict[str, Any]:
        return {_WHOLE: whole_table(read(*args, **options))}

    family.load_torch_weights = staticmethod(read_whole)
    try:
        yield
    finally:
        del family.load_torch_weights  # what it inherits is there again


def whole_table(tensors: Mapping[str, Any]) -> torch.Tensor:
    """float32 [tokens, dimensions]: ``embeddings[mapping[token]] * weights[token]`` of what a file holds.

    Raises:
        CheckpointUnsupported: it holds no table, or parts that do not fit together.
    """
    rows = tensors.get(_WHOLE, tensors.get(_ROWS))
    if rows is None or rows.ndim != 2:
        raise CheckpointUnsupported(
            f"the weights of a StaticEmbedding are {', '.join(sorted(tensors)) or 'empty'}; expected a table"
            f" {_WHOLE} or {_ROWS} [tokens, dimensions]"
        )
    table: torch.Tensor = torch.as_tensor(rows).to(torch.float32)
    if (mapping := tensors.get(_MAPPING)) is not None:
        mapping = torch.as_tensor(mapping).long()
        if mapping.ndim != 1 or (len(mapping) and not 0 <= int(mapping.min()) <= int(mapping.max()) < len(table)):
            raise CheckpointUnsupported(
                f"its {_MAPPING} leads out of a table of {len(table)} rows; the file is damaged"
            )
        table = table[mapping]
    if (weights := tensors.get(_WEIGHTS)) is not None:
        if tuple(weights.shape) != (len(table),):
            raise CheckpointUnsupported(
                f"its {_WEIGHTS} are {tuple(weights.shape)} for {len(table)} tokens; the file is damaged"
            )
        table = table * torch.as_tensor(weights).to(torch.float32)[:, None]
    return table.contiguous()


def read(reference: Any, wanted: int | None) -> tuple[TextRules, str, list[str]]:
    """Rules for text, the tokenizer, and what a person should know; the reference is made to cut there too.

    Raises:
        CheckpointUnsupported: more tokens are ``wanted`` than the tokenizer keeps.
    """
    table, tokenizer = reference[0].embedding.weight, reference[0].tokenizer
    kept = tokenizer.truncation or {}
    most = kept.get("max_length")
    if wanted is not None and most is not None and wanted > most:
        raise CheckpointUnsupported(f"max-length {wanted} is more than the checkpoint reads: at most {most} tokens")
    limit = int(wanted or most or MOST_TOKENS)
    tokenizer.enable_truncation(limit, direction=kept.get("direction", "right"))
    rules = TextRules(
        max_length=limit,
        truncate_left=kept.get("direction") == "left",
        vocab_size=len(table),
        empty_token_id=len(table),
    )
    return rules, plain(tokenizer), [] if wanted or most else [_UNLIMITED]


_UNLIMITED = (
    f"it reads texts of any length in sentence-transformers, and of the package's texts the first {MOST_TOKENS} tokens;"
    " --max-length N sets another limit (answers say which texts were cut)"
)


def unknown_id(tokenizer: Any) -> int | None:
    """What stands for words that the tokenizer of a table does not know; None where nothing does."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return None if unknown is None else tokenizer.token_to_id(unknown)


def token_ids(reference: Any, texts: list[str]) -> list[list[int]]:
    """What the library looks up for each text."""
    return [found.ids for found in reference[0].tokenizer.encode_batch(texts, add_special_tokens=False)]


def length_in(reference: Any) -> float:
    """Most tokens of a text that the reference reads."""
    kept = reference[0].tokenizer.truncation
    return math.inf if kept is None else float(kept["max_length"])


def traceable(reference: Any) -> Traceable:
    """A ``SentenceTransformer`` over a table as one module."""
    return Traceable(_Embedder(reference), [_IDS, _MASK])


class _Embedder(torch.nn.Module):
    """input_ids, attention_mask [rows, length] -> vectors [rows, dimensions]."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        table = reference[0].embedding.weight.detach()
        nothing = torch.zeros_like(table[:1])
        self.table = torch.nn.Embedding(*torch.cat([table, nothing]).shape)
        with torch.no_grad():
            self.table.weight.copy_(torch.cat([table, nothing]))
        self.rest = torch.nn.ModuleList(list(reference)[1:])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # Kernels add up in an order that the shape of the batch decides; in float64 that shows in no float32.
        mask, rows = attention_mask.to(torch.float64), self.table(input_ids).to(torch.float64)
        mean = torch.bmm(mask.unsqueeze(1), rows).squeeze(1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        features = {_VECTOR: mean.to(torch.float32)}
        for module in self.rest:
            features = module(features)
        return torch.as_tensor(features[_VECTOR])


def plain(tokenizer: Any) -> str:
    """The tokenizer without truncation, padding, and what it would put around a text."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    content |= {"truncation": None, "padding": None, "post_processor": None}
    return json.dumps(content, ensure_ascii=False)
