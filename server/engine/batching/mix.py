"""What the work of a model is like: tokens for each second that the cost tables count, over what came lately."""

from __future__ import annotations

import numpy as np

from .buckets import Ladder
from .cost import Costs

_TYPICAL_TOKENS = 128
"""A row before there has been any."""
_MEMORY = 0.02
"""Weight of the newest batch: about the last fifty count, each by its seconds."""


class Mix:
    """Tokens of text by the table's seconds for their rows: long rows cost more a token than short ones."""

    __slots__ = ("_seconds", "_tokens")

    def __init__(self, tokens: float, seconds: float) -> None:
        """As if rows of that many tokens had come so far, which take that many seconds."""
        self._tokens, self._seconds = float(tokens), seconds

    @classmethod
    def typical(cls, ladder: Ladder, costs: Costs) -> Mix:
        """What a model's work may be like, before there has been any."""
        level = int(ladder.levels(np.array([min(_TYPICAL_TOKENS, ladder.lengths[-1])], np.int32))[0])
        return cls(ladder.lengths[level], float(costs.row_seconds()[level]) / costs.factor)

    @property
    def tokens_per_s(self) -> float:
        """Tokens for each second of the table."""
        return self._tokens / self._seconds

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes in a batch: its tokens of text, and what its rows take in the best batches of their lengths."""
        self._tokens += tokens - _MEMORY * self._tokens
        self._seconds += seconds - _MEMORY * self._seconds
