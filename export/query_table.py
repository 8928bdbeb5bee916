"""The table that queries of an inference-free sparse encoder are looked up in: compared, and written into a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pairwire.server.engine.text.encoder import EncodedRows
from pairwire.server.package import sha256_of
from pairwire.v1 import manifest_pb2

from .checkpoint.routers import Queries
from .errors import CheckpointUnsupported
from .texts import Texts

WEIGHTS_FILE, TOKENIZER_FILE = "query_weights.bin", "query_tokenizer.json"
_LIMIT = 1e-6
"""Largest difference of a weight, per unit of the largest above 1: looking up rounds nothing."""
_BATCH = 8


def compare_queries(queries: Queries, texts: Sequence[Texts], prompt: str) -> tuple[int, float]:
    """How many queries were compared with sentence-transformers, and the largest difference of a weight.

    Raises:
        CheckpointUnsupported: it is not the same table, or texts are tokenised differently.
    """
    table = queries.table()
    inputs = [item[0] for part in texts for item in part.inputs]
    rows: EncodedRows = table.encoder.encode_texts(inputs, prompt=prompt)
    expected = queries.reference.encode(
        inputs,
        prompt=prompt,
        batch_size=_BATCH,
        show_progress_bar=False,
        convert_to_sparse_tensor=False,
        max_active_dims=len(queries.weights),
    )
    wanted = np.asarray(expected, dtype=np.float64)
    found = np.zeros_like(wanted)
    indices, values, counts = table.look_up(rows)
    found[np.repeat(np.arange(len(inputs)), counts), indices] = values
    off = np.abs(found - wanted)
    difference = float(off.max())
    if not difference <= _LIMIT * max(1.0, float(np.abs(wanted).max())):
        at = int(off.max(axis=1).argmax())
        raise CheckpointUnsupported(
            f"query {at} of the parity texts has other weights in the serving code (off by {difference:.2g}): its"
            " tokenizer's rules cannot be kept exactly"
        )
    return len(inputs), difference


def write_queries(queries: Queries, compared: tuple[int, float], directory: Path) -> manifest_pb2.QueryTable:
    """Writes both files; what the manifest says of them."""
    weights, tokenizer = directory / WEIGHTS_FILE, directory / TOKENIZER_FILE
    weights.write_bytes(queries.weights.astype("<f4").tobytes())
    tokenizer.write_text(queries.tokenizer_json, encoding="utf-8")
    return manifest_pb2.QueryTable(
        file=weights.name,
        sha256=sha256_of(weights),
        tokenizer_file=tokenizer.name,
        tokenizer_sha256=sha256_of(tokenizer),
        max_length=queries.max_length,
        truncation_side=(
            manifest_pb2.TRUNCATION_SIDE_LEFT if queries.truncate_left else manifest_pb2.TRUNCATION_SIDE_RIGHT
        ),
        samples=compared[0],
        max_abs_diff=compared[1],
    )
