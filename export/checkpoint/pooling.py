"""Pooling of right-padded rows, written so that it can be traced: every mode of sentence-transformers, exactly.

The library's own ``Pooling`` also serves rows that are padded on the left, and asks at run time whether there are
any. What is traced here asks nothing: the first token of a row is its first, and where it ends is how many it has.
Where nothing is pooled (a row that only fills a shape, or one that its prompt fills) there are zeros: never NaN, and
not the library's minus infinity as the largest of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""What `right_padded` pools by."""
PROMPT_LENGTHS = "prompt_lengths"
"""The input that says how many tokens of each row are the prompt, where pooling leaves it out: int64 [rows]."""


def replace_pooling(model: Any) -> None:
    """Puts a module that can be traced instead of the library's ``Pooling`` of a ``SentenceTransformer``.

    The mean of all tokens stays: the library's own is traced as it should be, and what runs on a GPU knows its form.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    at = next(index for index, module in enumerate(model) if isinstance(module, Pooling))
    pooling = model[at]
    modes = (pooling.pooling_mode,) if isinstance(pooling.pooling_mode, str) else tuple(pooling.pooling_mode)
    if modes != ("mean",) or not pooling.include_prompt:
        model[at] = right_padded(modes, include_prompt=pooling.include_prompt)


def right_padded(modes: Sequence[str], *, include_prompt: bool) -> Any:
    """A ``torch.nn.Module`` instead of the library's ``Pooling``: modes are concatenated in order."""
    import torch

    class RightPadded(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            rows = _Rows(
                features["token_embeddings"],
                features["attention_mask"],
                None if include_prompt else features[PROMPT_LENGTHS],
            )
            vectors = [rows.pooled(mode) for mode in modes]
            # A graph has no operator that it can do without.
            features["sentence_embedding"] = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)
            return features

    return RightPadded()


class _Rows:
    """Token vectors [rows, length, hidden] of which each row has ``mask.sum()``, and of those some are pooled."""

    def __init__(self, tokens: Any, mask: Any, prompts: Any | None) -> None:
        self._tokens = tokens
        self._length = mask.sum(dim=1, keepdim=True)
        self._position = mask.cumsum(dim=1)  # from 1; the length of the tensor is in no constant of the graph
        self._left_out = None if prompts is None else prompts.unsqueeze(1)
        pooled = mask if self._left_out is None else mask * (self._position > self._left_out)
        self._pooled = pooled.to(tokens.dtype).unsqueeze(-1)
        self._sum: Any = None

    def pooled(self, mode: str) -> Any:
        """[rows, hidden] by one mode."""
        return {
            "cls": self._first,
            "max": self._max,
            "mean": self._mean,
            "mean_sqrt_len_tokens": self._mean_sqrt,
            "weightedmean": self._weighted_mean,
            "lasttoken": self._last,
        }[mode]()

    def _first(self) -> Any:
        """The first pooled token; where the prompt fills the row, the first of all, as the library."""
        import torch

        if self._left_out is None:
            return self._tokens[:, 0]
        return self._at(torch.where(self._left_out < self._length, self._left_out, 0))

    def _last(self) -> Any:
        """The last token; zeros where nothing is pooled."""
        values = self._at((self._length - 1).clamp(min=0))
        return values * self._any()

    def _max(self) -> Any:
        import torch

        inside = torch.where(self._pooled > 0, self._tokens, torch.finfo(self._tokens.dtype).min)
        return inside.amax(dim=1) * self._any()

    def _mean(self) -> Any:
        return self._total() / self._count()

    def _mean_sqrt(self) -> Any:
        return self._total() / self._count().sqrt()

    def _weighted_mean(self) -> Any:
        weights = self._pooled * self._position.to(self._tokens.dtype).unsqueeze(-1)
        return (self._tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)

    def _total(self) -> Any:
        if self._sum is None:
            self._sum = (self._tokens * self._pooled).sum(dim=1)
        return self._sum

    def _count(self) -> Any:
        return self._pooled.sum(dim=1).clamp(min=1e-9)

    def _any(self) -> Any:
        """[rows, 1], 1 where at least one token is pooled."""
        return self._pooled.amax(dim=1)

    def _at(self, index: Any) -> Any:
        """One token of each row; ``index`` [rows, 1]."""
        hidden = self._tokens.shape[-1]
        return self._tokens.gather(1, index.unsqueeze(-1).expand(-1, 1, hidden)).squeeze(1)
