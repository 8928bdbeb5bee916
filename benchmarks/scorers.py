"""Who scores pairs: the variants of a package through the engine, and sentence-transformers on the original checkpoint.

A bi-encoder's score of a pair is the cosine of its texts' vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pairwire.server.engine import EmbedOptions, Engine, EngineConfig, ScoreOptions
from pairwire.v1 import manifest_pb2

from .datasets import Pair

Score = Callable[[Sequence[Pair]], npt.NDArray[np.float32]]
"""Pairs -> scores [pairs] after the checkpoint's activation, or cosines."""
PAIRS_A_CALL = 1024
ORIGINAL_BATCH = 16
"""Rows of a batch of the original; it sorts by length, and small batches pad less."""


def bi_encoder(manifest: manifest_pb2.ModelManifest) -> bool:
    """Whether a package embeds texts.

    Raises:
        SystemExit: it neither embeds them nor gives one score a pair.
    """
    if manifest.kind == manifest_pb2.MODEL_KIND_BI_ENCODER:
        return True
    if manifest.kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER and len(manifest.labels) == 1:
        return False
    raise SystemExit("--package: needs a cross-encoder of one label or a bi-encoder with dense vectors")


class VariantScorer:
    """One variant of a package. ``close`` stops its workers."""

    def __init__(self, package: Path, variant: str, *, embeds: bool, max_length: int | None) -> None:
        self._runner = asyncio.Runner()
        self._engine = self._runner.run(Engine.open(package, config=EngineConfig(variant=variant)))
        self._embeds = embeds
        self._max_length = max_length

    def score(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Scores or cosines [pairs]."""
        of = self._cosines if self._embeds else self._scores
        return np.concatenate([of(pairs[at : at + PAIRS_A_CALL]) for at in range(0, len(pairs), PAIRS_A_CALL)])

    def close(self) -> None:
        """Stops the workers."""
        self._runner.run(self._engine.close())
        self._runner.close()

    def _scores(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        options = ScoreOptions(max_length=self._max_length)
        return self._runner.run(self._engine.score(pairs, options=options)).scores[:, 0]

    def _cosines(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        options = EmbedOptions(max_length=self._max_length)

        def embed(texts: list[str]) -> npt.NDArray[np.float32]:
            return self._runner.run(self._engine.embed(texts, options=options)).embeddings

        return cosines(pairs, embed)


def original(checkpoint: Path, *, embeds: bool, max_length: int | None) -> Score:
    """sentence-transformers on the checkpoint's directory, float32 on the CPU, at its own limit or ``max_length``."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    if embeds:
        model = SentenceTransformer(str(checkpoint), device="cpu")
        model.max_seq_length = max_length or model.max_seq_length
        return lambda pairs: cosines(pairs, lambda texts: model.encode(texts, batch_size=ORIGINAL_BATCH))
    scorer = CrossEncoder(str(checkpoint), device="cpu", max_length=max_length)
    return lambda pairs: np.asarray(scorer.predict(list(pairs), batch_size=ORIGINAL_BATCH), np.float32).reshape(-1)


def cosines(pairs: Sequence[Pair], embed: Callable[[list[str]], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Cosine of each pair's vectors; a text that stands in several pairs is embedded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = np.asarray(embed(texts), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    at = {text: index for index, text in enumerate(texts)}
    firsts, seconds = (vectors[[at[pair[side]] for pair in pairs]] for side in (0, 1))
    return np.asarray((firsts * seconds).sum(axis=1), dtype=np.float32)
