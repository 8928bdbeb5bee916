"""Graphs in files and in sessions, whatever their size.

A protobuf message, and so an ONNX file, ends at 2 GiB. The weights of a larger graph go into a second file beside the
first, each at a multiple of a memory page, so that ONNX Runtime maps them instead of reading them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import set_external_data

from pairwire.server.runtime.ort import ort

LARGEST_BYTES = 2**31 - 2**20
"""Weights that fit into a message, with room for the operators."""
DATA_SUFFIX = ".data"
"""What a file of weights has behind the name of its graph."""
EXTERNAL_FROM = 1024
"""Bytes of a tensor that leaves the message; smaller ones may be shapes, which are looked at when a graph is loaded."""
_PAGE = 4096


def is_large(model: ModelProto) -> bool:
    """Whether the weights need a file of their own."""
    return sum(_size(tensor) for tensor in model.graph.initializer) > LARGEST_BYTES


def data_file(file: Path) -> Path:
    """Where the weights of a large graph are, beside it."""
    return file.with_name(file.name + DATA_SUFFIX)


def save(model: ModelProto, file: Path) -> Path | None:
    """Writes a graph, which stays as it is; returns the file of its weights, if it needs one."""
    if not is_large(model):
        onnx.save(model, file)
        return None
    onnx.save(_detached(model, data_file(file)), file)
    return data_file(file)


def open_session(model: ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the CPU. The model stays as it is."""
    providers = ["CPUExecutionProvider"]
    if not is_large(model):
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="pairwire-session-") as folder:
        file = Path(folder) / "graph.onnx"
        save(model, file)
        return ort.InferenceSession(str(file), options, providers=providers)


def _detached(model: ModelProto, data: Path) -> ModelProto:
    """A copy of the graph that finds its weights in the file ``data``, which is written. Nothing large is copied."""
    detached = ModelProto()
    _copy_fields(model, detached, without="graph")
    _copy_fields(model.graph, detached.graph, without="initializer")
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if _size(tensor) < EXTERNAL_FROM or not tensor.HasField("raw_data"):
                detached.graph.initializer.append(tensor)
                continue
            content = tensor.raw_data
            file.write(bytes(-file.tell() % _PAGE))
            moved = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b"")
            set_external_data(moved, location=data.name, offset=file.tell(), length=len(content))
            moved.ClearField("raw_data")
            file.write(content)
            detached.graph.initializer.append(moved)
    return detached


def _copy_fields(source: object, target: object, *, without: str) -> None:
    """Copies all fields of a message but one."""
    for field, value in source.ListFields():  # type: ignore[attr-defined]  # any message has it
        if field.name == without:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _size(tensor: TensorProto) -> int:
    """Bytes of a tensor, by its dims: to look at its content would copy it."""
    return int(np.prod(tensor.dims, dtype=np.int64)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
