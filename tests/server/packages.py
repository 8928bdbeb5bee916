"""Model packages of a few kilobytes: a real graph, a real tokenizer, a real manifest, no exporter."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from pairwire.server.package import MANIFEST_FILE, TOKENIZER_FILE, sha256_of
from pairwire.v1 import manifest_pb2

GRAPH_FILE = "cpu-fp32.onnx"


def save_sum_graph(path: Path, *, outputs: int = 1, extra_input: str = "") -> None:
    """A graph whose every output is the sum of a row's token ids plus its token types, padding left out."""
    import numpy as np

    names = ["input_ids", "attention_mask", "token_type_ids", *([extra_input] if extra_input else [])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in names]
    nodes = [
        helper.make_node("Add", ["input_ids", "token_type_ids"], ["added"]),
        helper.make_node("Mul", ["added", "attention_mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis"], ["summed"], keepdims=1),
        helper.make_node("Cast", ["summed"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["cast"] * outputs, ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def save_package(directory: Path, manifest: manifest_pb2.ModelManifest, tokenizer: Tokenizer) -> Path:
    """A package whose one variant is ``save_sum_graph``'s; ``manifest`` gets what belongs to the files."""
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / TOKENIZER_FILE))
    save_sum_graph(directory / GRAPH_FILE, outputs=len(manifest.labels) or manifest.dimensions)
    manifest.tokenizer_sha256 = sha256_of(directory / TOKENIZER_FILE)
    del manifest.variants[:]
    manifest.variants.add(
        name="cpu-fp32",
        file=GRAPH_FILE,
        provider="cpu",
        precision="fp32",
        sha256=sha256_of(directory / GRAPH_FILE),
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    write_manifest(directory, manifest)
    return directory


def write_manifest(directory: Path, manifest: manifest_pb2.ModelManifest) -> None:
    """Writes manifest.json as the exporter does."""
    (directory / MANIFEST_FILE).write_text(json_format.MessageToJson(manifest), encoding="utf-8")
