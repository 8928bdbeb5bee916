"""A checkpoint's own rules for text, as its package tells them."""

from __future__ import annotations

from dataclasses import dataclass

from .pair_template import PairTemplate


@dataclass(frozen=True, slots=True)
class TextRules:
    """The checkpoint's own rules for text, from the manifest."""

    max_length: int
    """Most tokens of a row, special tokens included."""
    pad_token_id: int = 0
    pad_token_type_id: int = 0
    truncate_left: bool = False
    """Cut the beginning of a too long text, not its end."""
    template: PairTemplate | None = None
    """How a pair becomes one text; None where the tokenizer joins two."""
    prompt_excluded: bool = False
    """Pooling leaves the prompt's tokens out, so that batches must say how many they are."""
    empty_token_id: int | None = None
    """What a row has where a text has no token, whose embedding is zeros; None where such a text is refused."""
    vocab_size: int = 0
    """Rows of the model's embeddings: ids of tokens are below it; 0 where the package does not say."""
