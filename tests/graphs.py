"""What tests of graph rewrites share: running a model, toy graphs, and batches with padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pairwire.server.runtime.ort import ort

Feeds = Mapping[str, npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.float32]]


def run(model: ModelProto, feeds: Feeds) -> npt.NDArray[np.float32]:
    """The first output. Inputs that the model does not have are left out."""
    return np.asarray(run_all(model, feeds)[0])


def run_all(model: ModelProto, feeds: Feeds) -> list[npt.NDArray[np.generic]]:
    """All outputs."""
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return [np.asarray(value) for value in session.run(None, {name: feeds[name] for name in names})]


def padded_batch(*, rows: int = 6, length: int = 24, vocabulary: int = 150) -> dict[str, npt.NDArray[np.int64]]:
    """Random rows of lengths from 2 to ``length``, with two token types, padded with zeros."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(2, length, rows).astype(np.int64)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(5, vocabulary, (rows, length)) * mask
    types = (np.arange(length) >= lengths[:, None] // 2).astype(np.int64) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def disturb_biases(model: ModelProto) -> None:
    """Gives all vectors of weights other values, in place: the biases of a checkpoint just made are zero."""
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim == 1 and len(value) >= 32:
            noise = rng.normal(scale=0.3, size=value.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value + noise, tensor.name))


def toy(
    nodes: Sequence[NodeProto], constants: Mapping[str, npt.NDArray[np.generic]], output_rank: int, *, hidden: int = 8
) -> ModelProto:
    """A model that reads ``x`` float32 [rows, length, hidden] and gives ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "length", hidden])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * output_rank)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def kinds(model: ModelProto) -> list[str]:
    """Operator types in order."""
    return [node.op_type for node in model.graph.node]
