"""Queries of a sparse encoder that need no model: each token of the vocabulary has one weight, wherever it stands.

Such a package ("inference-free") has a graph for documents and a table for queries. A query is tokenised, its distinct
tokens are looked up, and that is all: nothing waits for a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from pairwire.v1 import manifest_pb2

from ...errors import PackageInvalid
from ...package import Package
from ...runtime.base import Float32Array, UInt32Array
from ..outputs.sparse import largest
from ..text.encoder import EncodedRows, TextEncoder, TextRules


@dataclass(frozen=True, slots=True)
class QueryTable:
    """A tokenizer for queries, and the weight of each of its tokens."""

    encoder: TextEncoder
    weights: Float32Array
    """[vocabulary] float32, none below 0."""

    def look_up(self, rows: EncodedRows, most: int = 0) -> tuple[UInt32Array, Float32Array, UInt32Array]:
        """Indices, values and counts of rows, as ``outputs.sparse.to_sparse``; each distinct token counts once."""
        indices, values = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
        for ids, _, _ in rows.rows:
            found = np.unique(np.frombuffer(ids, np.int32))
            found = found[found < len(self.weights)]  # that of an empty text is behind them
            kept = largest(found[self.weights[found] > 0], self.weights, most)
            indices.append(kept.astype(np.uint32))
            values.append(self.weights[kept])
        counts = np.array([len(part) for part in indices[1:]], np.uint32)
        return np.concatenate(indices), np.concatenate(values), counts


def table_of(weights: Float32Array, tokenizer: Tokenizer, *, max_length: int, truncate_left: bool) -> QueryTable:
    """The table over a tokenizer that puts nothing around a text.

    Raises:
        ValueError: it does, or weights are not finite or below 0.
    """
    if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("the weights of queries' tokens must be finite and not below 0")
    rules = TextRules(
        max_length=max_length,
        truncate_left=truncate_left,
        vocab_size=len(weights),
        empty_token_id=len(weights),
    )
    return QueryTable(TextEncoder(tokenizer, rules), weights)


def open_query_table(package: Package) -> QueryTable | None:
    """The table of a package, verified; None where it has none.

    Raises:
        PackageInvalid: a file is missing, damaged, or of another size than the manifest says.
    """
    if not package.manifest.HasField("query_table"):
        return None
    said = package.manifest.query_table
    content = package.file(said.file, said.sha256).read_bytes()
    if len(content) != 4 * package.manifest.dimensions:
        raise PackageInvalid(
            f"{package.directory / said.file}: {len(content)} bytes, expected a float32 for each of"
            f" {package.manifest.dimensions} tokens; export the model again"
        )
    tokenizer = Tokenizer.from_file(str(package.file(said.tokenizer_file, said.tokenizer_sha256)))
    try:
        return table_of(
            np.frombuffer(content, "<f4"),
            tokenizer,
            max_length=said.max_length,
            truncate_left=said.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT,
        )
    except ValueError as error:
        raise PackageInvalid(f"{package.directory / said.file}: {error}; export the model again") from error
