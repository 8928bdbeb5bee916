"""One server for all clients: a cross-encoder, a bi-encoder, a sparse encoder, and what pairwire.v1 says of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.serving import Server, serving
from pairwire.client import Client
from pairwire.client.results import Float32Array
from tests.server import toy_packages

QUERY = "how do I bake bread"
DOCUMENTS = ("mix flour and water", "the dog runs", "bake the bread", "the dog runs", "Zwei Hunde laufen, 猫 😀")
LONG = "the lazy dog " * 200
"""Longer than any of the models reads."""


@contextmanager
def served(directory: Path, *options: str) -> Iterator[Server]:
    """Serves ``demo``, ``mini`` and ``splade`` until the block ends, over HTTP too.

    Beside the packages, ``expected.json`` has the texts, and the numbers that pairwire.v1 gives for them.
    """
    packages = [
        toy_packages.write_cross_encoder(directory / "demo", name="demo"),
        toy_packages.write_bi_encoder(directory / "mini", name="mini", prompts={"query": "query: "}),
        toy_packages.write_sparse_encoder(directory / "splade", name="splade"),
    ]
    with serving(packages, ["--warmup-s", "0.01", "--cache-dir", "none", "--http-port", "0", *options]) as server:
        (directory / "expected.json").write_text(json.dumps(_expected(server.address)), encoding="utf-8")
        yield server


def _expected(address: str) -> dict[str, object]:
    """Numbers as float64, in which a float32 is exact."""
    with Client(address) as client:
        sparse = client.embed_sparse(list(DOCUMENTS), model="splade")
        return {
            "query": QUERY,
            "documents": DOCUMENTS,
            "long": LONG,
            "logits": _numbers(client.score_documents(QUERY, DOCUMENTS, model="demo", activation="identity").scores),
            "sigmoids": _numbers(client.score_documents(QUERY, DOCUMENTS, model="demo", activation="sigmoid").scores),
            "vectors": _numbers(client.embed(list(DOCUMENTS), model="mini").embeddings),
            "unit_vectors": _numbers(client.embed(list(DOCUMENTS), model="mini", normalize=True).embeddings),
            "indices": sparse.indices.tolist(),
            "weights": _numbers(sparse.values),
            "counts": sparse.counts.tolist(),
        }


def _numbers(values: Float32Array) -> object:
    return values.astype(np.float64).tolist()
