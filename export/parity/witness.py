"""A few texts, and what sentence-transformers makes of them: what is traced must say the same, or no package is made.

Parity compares what is served, in its own precision, and may be left out. This compares what is prepared (adapter
merged, plain attention, modules of ours in place of the library's, heads split) in float32 and before the activation,
which hides much: a saturated score is 1 whatever the head is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.reasons import is_of_the_machine, reason_of
from pairwire.server.runtime.onnx_cpu import feed

from ..checkpoint.checkpoint import Checkpoint, encode
from ..errors import CheckpointUnsupported
from ..figures import FP32_LIMIT, deciding
from ..texts import Input, Texts
from .compare import check_finite, check_tokenisation, readable, whole_vectors

_COUNT = 6
"""Texts, from the shortest to the longest that is short."""
_SHORT = 96
"""Tokens of the longest of them, where there are shorter ones."""


class Witness:
    """The reference's logits or vectors of a few texts.

    Raises:
        CheckpointUnsupported: the texts are tokenised differently, or the reference gives no numbers.
    """

    def __init__(self, checkpoint: Checkpoint, texts: Texts) -> None:
        self._checkpoint = checkpoint
        self._encoder = checkpoint.text_encoder()
        self._inputs = self._few(texts)
        self._rows = encode(self._encoder, self._inputs, checkpoint)
        check_tokenisation(checkpoint, self._encoder, self._rows, self._inputs)
        self._results = _results(checkpoint, self._inputs)
        check_finite(self._results)

    def check(self, session: Any) -> None:
        """Runs the graph of a session of ONNX Runtime.

        Raises:
            CheckpointUnsupported: it gives something else; the sentence says how far off it is.
        """
        every = range(len(self._inputs))
        alone = np.concatenate([self._run(session, [index]) for index in every])
        if alone.shape != self._results.shape:
            raise CheckpointUnsupported(
                f"what is traced has {alone.shape[1]} outputs, and {self._results.shape[1]} in sentence-transformers"
            )
        self._compare(alone, "")
        self._compare(self._run(session, every), " in one batch")

    def _run(self, session: Any, indices: Sequence[int]) -> npt.NDArray[np.float64]:
        """[indices, outputs] of one batch."""
        length = int(self._rows.lengths[list(indices)].max())
        batch = self._encoder.assemble([(self._rows, index) for index in indices], length)
        names = [node.name for node in session.get_inputs()]
        try:
            (output,) = session.run(None, {name: feed(name, batch) for name in names})
        except Exception as error:  # of ONNX Runtime's many kinds
            if is_of_the_machine(error):
                raise
            raise CheckpointUnsupported(
                f"what is traced cannot run {len(indices)} x {length} tokens, as its code makes constants of the shape"
                f" that it was traced with: {reason_of(error)}"
            ) from error
        own = self._checkpoint.scale * np.asarray(output, np.float64) + self._checkpoint.bias
        return own.reshape(len(indices), -1)

    def _compare(self, results: npt.NDArray[np.float64], where: str) -> None:
        difference = float(np.abs(results - self._results).max())
        limit = FP32_LIMIT * max(1.0, float(np.abs(self._results).max()))
        if not difference <= limit:
            name = self._checkpoint.source.name
            raise CheckpointUnsupported(
                f"what is traced differs from what sentence-transformers makes of {name}{where}: by"
                f" {deciding(difference, limit, '.2g')}, allowed {limit:.2g}; no package was made"
            )

    def _few(self, texts: Texts) -> list[Input]:
        inputs = readable(texts, self._encoder, self._checkpoint).inputs
        lengths = encode(self._encoder, inputs, self._checkpoint).lengths
        order = np.argsort(lengths, kind="stable")
        short = order[: max(_COUNT, int((lengths <= _SHORT).sum()))]
        chosen = short[np.linspace(0, len(short) - 1, min(_COUNT, len(short))).astype(int)]
        return [inputs[index] for index in chosen]


def _results(checkpoint: Checkpoint, inputs: list[Input]) -> npt.NDArray[np.float64]:
    """[inputs, outputs]; one row at a time, so that no padding is in them."""
    model = checkpoint.reference
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        import torch

        pairs = [list(item) for item in inputs]
        results = model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1, show_progress_bar=False)
    else:
        texts = [item[0] for item in inputs]
        results = model.encode(texts, batch_size=1, show_progress_bar=False, **whole_vectors(checkpoint))
    return np.asarray(results, dtype=np.float64).reshape(len(inputs), -1)
