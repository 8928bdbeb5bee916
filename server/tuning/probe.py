"""Do two ways of running a package give the same answers? Built-in texts, tokenised and scored as the server does."""

from __future__ import annotations

import itertools

import numpy as np

from ..engine.outputs.heads import Head
from ..engine.text.encoder import EncodedRows, TextEncoder
from ..runtime.base import Float32Array, Runtime

TEXTS = (
    "how do vaccines work?",
    "A vaccine shows the immune system a harmless part of a germ, so that it knows the whole germ when it comes.",
    "The bridge was closed for two weeks after engineers had found cracks in three of its steel cables.",
    "Wie lange muss ein weich gekochtes Ei kochen?",
    "Un œuf à la coque demande trois minutes dans l'eau bouillante, un œuf dur en demande dix.",
    "ok",
    "2024-02-29T12:00:00Z, 3.14159, +49 30 123456, https://example.org/a?b=1",
    "Прогноз погоды на завтра: облачно, без осадков, ветер слабый.",
    "猫が敷物の上で寝ている。",
    "Interest rates were left unchanged, the central bank said, because inflation had slowed for the third month in a"
    " row while wages rose and unemployment stayed at its lowest level in two decades.",
)
_LONG = (1, 2, 3)
"""All texts, this many times one after the other: about 200, 400 and 600 tokens, for the kernels of long rows."""


class Probe:
    """The rows of one package, and what a runtime makes of them."""

    def __init__(self, encoder: TextEncoder, head: Head, *, pairs: bool) -> None:
        """``pairs`` for a cross-encoder."""
        self._encoder = encoder
        self._head = head
        whole = " ".join(TEXTS)
        long = [" ".join([whole] * times) for times in _LONG]
        if pairs:
            both = [*itertools.pairwise(TEXTS), *((TEXTS[0], text) for text in long)]
            self._rows: EncodedRows = encoder.encode_pairs([a for a, _ in both], [b for _, b in both])
        else:
            self._rows = encoder.encode_texts([*TEXTS, *long])

    def __len__(self) -> int:
        return len(self._rows)

    def answers(self, runtime: Runtime) -> Float32Array:
        """[rows, outputs] scores or vectors; every row alone and unpadded."""
        rows = []
        for index in range(len(self._rows)):
            batch = self._encoder.assemble([(self._rows, index)], int(self._rows.lengths[index]))
            rows.append(self._head.scores(runtime.run(batch)))
        return np.concatenate(rows)


def difference(answers: Float32Array, expected: Float32Array) -> float:
    """The largest, NaN where either side has one, per unit of the largest expected value above 1."""
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(answers.astype(np.float64) - expected).max()) / scale
