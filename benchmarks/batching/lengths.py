"""Token lengths of pairs, in the order in which a service would see them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.package import read_package
from pairwire.server.runtime.base import Int32Array

from ..datasets import READERS, Pair, load_pairs

Counter = Callable[[Sequence[Pair]], Int32Array]
"""Pairs -> tokens of each, special tokens included, cut to the model's maximum."""

SYNTHETIC = "lognormal"
MIXED = "mixed"


def names(data: Path | None) -> list[str]:
    """The distributions that there are: with data sets their own, else the built-in texts; the synthetic one; mixed."""
    return [*(READERS if data else ["builtin"]), SYNTHETIC, MIXED]


def load_lengths(name: str, data: Path | None, counter: Counter, max_length: int, seed: int) -> list[Int32Array]:
    """One or, for ``mixed``, several series of lengths; a request draws all its rows from one of them.

    Raises:
        SystemExit: the data set is unknown, or its files are not below ``data``.
    """
    if name == SYNTHETIC:
        return [_synthetic(max_length, seed)]
    if name == MIXED:
        parts = [part for part in names(data) if part != MIXED]
        return [series for part in parts for series in load_lengths(part, data, counter, max_length, seed)]
    return [counter(load_pairs(name, data))]


def _synthetic(max_length: int, seed: int, rows: int = 10_000) -> Int32Array:
    """Log-normal, half of it below 64 tokens, a tenth above 200: short queries, long passages, no order at all."""
    drawn = np.random.default_rng(seed).lognormal(math.log(64), 0.9, rows)
    return np.clip(drawn, 8, max_length).astype(np.int32)


def tokenizer_counter(package: Path) -> Counter:
    """Counts with the tokenizer of a model package.

    Raises:
        PackageInvalid: it cannot be read.
    """
    found = read_package(package)
    encoder = TextEncoder.from_file(found.tokenizer_file, TextRules(max_length=found.manifest.max_length))

    def count(pairs: Sequence[Pair]) -> Int32Array:
        return encoder.encode_pairs([first for first, _ in pairs], [second for _, second in pairs]).lengths

    return count


_PIECE = re.compile(r"\w+|[^\w\s]")
_PIECES_A_WORD = 1.15
_SPECIAL_TOKENS = 3


def estimating_counter(max_length: int) -> Counter:
    """Counts words and marks, where there is no tokenizer: within some percent of WordPiece on English text."""

    def count(pairs: Sequence[Pair]) -> Int32Array:
        words = [len(_PIECE.findall(first)) + len(_PIECE.findall(second)) for first, second in pairs]
        tokens = [min(max_length, round(count * _PIECES_A_WORD) + _SPECIAL_TOKENS) for count in words]
        return np.array(tokens, dtype=np.int32)

    return count
