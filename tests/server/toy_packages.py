"""Whole model packages, built in milliseconds without torch: a real tokenizer, and an ONNX graph of a few nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper
from tokenizers import processors

from benchmarks.chaos.faults import Fault, add_faults
from pairwire.server.package import MANIFEST_FILE, TOKENIZER_FILE, sha256_of
from pairwire.v1 import embedding_pb2, manifest_pb2
from tests.server.engine import toys

_GRAPH_FILE = "cpu-fp32.onnx"
_WIDTH = 32


def write_cross_encoder(
    directory: Path,
    *,
    name: str = "scorer",
    labels: Sequence[str] = ("LABEL_0",),
    max_length: int = 64,
    work: int = 0,
    faults: Mapping[Fault, str] | None = None,
) -> Path:
    """A cross-encoder whose logit is the sum of a number for each token; returns the directory.

    ``work`` makes it slow: this many matrix products for each token that change nothing. ``faults``: other tokens
    than the faults' own, e.g. ``[PAD]``, which warm-up is made of; None for no faults at all.
    """
    manifest = toys.cross_encoder_manifest(name, labels=labels, max_length=max_length)
    return _write(directory, manifest, outputs=len(labels), work=work, faults=faults)


def write_bi_encoder(
    directory: Path,
    *,
    name: str = "embedder",
    dimensions: int = 8,
    prompts: Mapping[str, str] | None = None,
    default_dimensions: int = 0,
    int8_range: float = 0,
    max_length: int = 64,
    scale: float = 1,
) -> Path:
    """A bi-encoder whose vector is the sum of a vector for each token; returns the directory.

    ``int8_range`` is where the range of every dimension ends, below 0 and above; 0 leaves the ranges out. ``scale`` is
    what its numbers are multiplied by.
    """
    manifest = toys.bi_encoder_manifest(name, dimensions=dimensions, prompts=prompts, max_length=max_length)
    manifest.default_dimensions = default_dimensions
    if int8_range:
        manifest.int8_low[:], manifest.int8_high[:] = [-int8_range] * dimensions, [int8_range] * dimensions
    return _write(directory, manifest, outputs=dimensions, work=0, scale=scale)


def write_sparse_encoder(
    directory: Path, *, name: str = "splade", dimensions: int = 300, prompts: Mapping[str, str] | None = None
) -> Path:
    """A sparse encoder, whose weights are what is above 0 of the sum of a vector for each token; the directory."""
    manifest = toys.bi_encoder_manifest(name, dimensions=dimensions, prompts=prompts)
    manifest.kind = manifest_pb2.MODEL_KIND_SPARSE_ENCODER
    return _write(directory, manifest, outputs=dimensions, work=0)


QUERY_TOKENS = 8
"""Most tokens of a query of `write_routed_encoder`."""


def write_routed_encoder(directory: Path, *, default: embedding_pb2.InputType.ValueType = 0) -> Path:
    """A sparse encoder named ``routed`` whose queries are looked up: a token's weight is its id; the directory."""
    tokenizer = toys.wordpiece()
    dimensions = tokenizer.get_vocab_size()
    write_sparse_encoder(directory, name="routed", dimensions=dimensions)
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.save(str(directory / "queries.json"))
    np.arange(dimensions, dtype="<f4").tofile(directory / "queries.bin")
    table = manifest_pb2.QueryTable(
        file="queries.bin",
        sha256=sha256_of(directory / "queries.bin"),
        tokenizer_file="queries.json",
        tokenizer_sha256=sha256_of(directory / "queries.json"),
        max_length=QUERY_TOKENS,
    )

    def change(manifest: manifest_pb2.ModelManifest) -> None:
        manifest.query_table.CopyFrom(table)
        manifest.default_input_type = default

    change_manifest(directory, change)
    return directory


def edit_manifest(directory: Path, **fields: object) -> None:
    """Sets fields of a package's manifest."""

    def change(manifest: manifest_pb2.ModelManifest) -> None:
        for name, value in fields.items():
            setattr(manifest, name, value)

    change_manifest(directory, change)


def change_manifest(directory: Path, change: Callable[[manifest_pb2.ModelManifest], None]) -> None:
    """Rewrites a package's manifest."""
    manifest = json_format.Parse((directory / MANIFEST_FILE).read_text(), manifest_pb2.ModelManifest())
    change(manifest)
    (directory / MANIFEST_FILE).write_text(json_format.MessageToJson(manifest))


def _write(
    directory: Path,
    manifest: manifest_pb2.ModelManifest,
    *,
    outputs: int,
    work: int,
    scale: float = 1,
    faults: Mapping[Fault, str] | None = None,
) -> Path:
    directory.mkdir(parents=True)
    toys.wordpiece().save(str(directory / TOKENIZER_FILE))
    model = _graph(outputs, work, scale)
    if faults is not None:
        add_faults(model, {fault: toys.wordpiece().token_to_id(faults.get(fault, fault.value)) for fault in Fault})
    onnx.save(model, str(directory / _GRAPH_FILE))
    manifest.tokenizer_sha256 = sha256_of(directory / TOKENIZER_FILE)
    manifest.variants.add(
        name="cpu-fp32",
        file=_GRAPH_FILE,
        provider="cpu",
        precision="fp32",
        sha256=sha256_of(directory / _GRAPH_FILE),
        inputs=["input_ids", "attention_mask"],
        output="values",
    )
    (directory / MANIFEST_FILE).write_text(json_format.MessageToJson(manifest))
    return directory


def _graph(outputs: int, work: int, scale: float) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    initializers = {
        "table": random.normal(size=(2000, _WIDTH)).astype(np.float32),
        "head": (scale * random.normal(size=(_WIDTH, outputs))).astype(np.float32),
        "same": np.eye(_WIDTH, dtype=np.float32),
        "last": np.array([2], dtype=np.int64),
        "tokens": np.array([1], dtype=np.int64),
    }
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x0"])]
    # Products with the identity; ONNX Runtime's optimizers do not see through them.
    nodes += [helper.make_node("MatMul", [f"x{step}", "same"], [f"x{step + 1}"]) for step in range(work)]
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", [f"x{work}", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "head"], ["values"]),
    ]
    shape = ["rows", "length"]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
