"""Graphs in files and in sessions, whatever their size.

A protobuf message, and so an ONNX file, ends at 2 GiB. The weights of a larger graph go into a second file next to the
first, each at a multiple of a memory page, so that ONNX Runtime maps them instead of reading them.

While an export works on a graph of more than ``HELD_BYTES``, its weights stay in a file too, once (`load_light`):
copies of such a graph, of which there are several, share that file, sessions map it, and arrays of weights are views of
it that take no memory of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data

from pairwire.server.runtime.ort import ort

LARGEST_BYTES = 2**31 - 2**20
"""Weights that fit into a message, with room for the operators."""
DATA_SUFFIX = ".data"
"""What a file of weights has behind the name of its graph."""
EXTERNAL_FROM = 1024
"""Bytes of a tensor that leaves the message; smaller ones may be shapes, which are looked at when a graph is loaded."""
HELD_BYTES = 64 * 2**20
"""Weights up to which a graph that is worked on has them in memory."""
_PAGE = 4096


def is_large(model: ModelProto) -> bool:
    """Whether the weights need a file of their own."""
    return size_of(model) > LARGEST_BYTES


def size_of(model: ModelProto) -> int:
    """Bytes of all weights, wherever they are."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def data_file(file: Path) -> Path:
    """Where the weights of a large graph are, next to it."""
    return file.with_name(file.name + DATA_SUFFIX)


def save(model: ModelProto, file: Path) -> Path | None:
    """Writes a graph, which stays as it is; returns the file of its weights, if it needs one."""
    if not is_large(model):
        onnx.save(_whole(model), file)
        return None
    onnx.save(_detached(model, data_file(file)), file)
    return data_file(file)


def load_light(file: Path) -> ModelProto:
    """Reads a graph; weights that lie in a file next to it stay there, and that file must stay too."""
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(file.parent.resolve() / entry.value)
    return model


def array_of(tensor: TensorProto) -> npt.NDArray[np.generic]:
    """The value of an initializer; where it lies in a file, a read-only view of it."""
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    place = ExternalDataInfo(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(place.location, dtype, "r", offset=place.offset or 0, shape=tuple(tensor.dims)).view(np.ndarray)


def open_session(model: ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the CPU. The model stays as it is."""
    providers = ["CPUExecutionProvider"]
    folder = _folder(model)
    if folder is None and not is_large(model):
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    if folder is not None:  # ONNX Runtime reads weights only below the graph's own directory
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as light:
            light.write(_beside(model).SerializeToString())
            light.flush()
            return ort.InferenceSession(light.name, options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="pairwire-session-") as name:
        file = Path(name) / "graph.onnx"
        save(model, file)
        return ort.InferenceSession(str(file), options, providers=providers)


def _folder(model: ModelProto) -> Path | None:
    """Where the file of a light graph's weights is; None where it holds all of them itself."""
    outside = next((tensor for tensor in model.graph.initializer if uses_external_data(tensor)), None)
    return None if outside is None else Path(ExternalDataInfo(outside).location).parent


def _beside(model: ModelProto) -> ModelProto:
    """A copy of a light graph that may be written into the folder of its weights."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = Path(entry.value).name
    return copy


def _whole(model: ModelProto) -> ModelProto:
    """The graph with all weights inside; a copy where some lie in a file."""
    if _folder(model) is None:
        return model
    whole = ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        if uses_external_data(tensor):
            content = array_of(tensor).tobytes()
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = content
    return whole


def _detached(model: ModelProto, data: Path) -> ModelProto:
    """A copy of the graph that finds its weights in the file ``data``, which is written. Nothing large is copied."""
    detached = ModelProto()
    _copy_fields(model, detached, without="graph")
    _copy_fields(model.graph, detached.graph, without="initializer")
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            outside = uses_external_data(tensor)
            if not outside and (_size(tensor) < EXTERNAL_FROM or not tensor.HasField("raw_data")):
                detached.graph.initializer.append(tensor)
                continue
            content = np.ascontiguousarray(array_of(tensor)).data.cast("B") if outside else tensor.raw_data
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
