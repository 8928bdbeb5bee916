"""What tests of packed graphs share: rows without padding, and weights that no two operators have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, numpy_helper

from pairwire.export.passes import bias_gelu, constant_reshapes, embed_layer_norm, packed, skip_layer_norm, unpacked
from pairwire.v1 import manifest_pb2
from tests import graphs

Padded = Mapping[str, npt.NDArray[np.int64]]
Graph = Callable[[str], ModelProto]
"""The fixture ``plain_graph``."""
WORD = 5
"""The token of rows that only fill the shape."""


def copy(model: ModelProto) -> ModelProto:
    """The model as it is now."""
    other = ModelProto()
    other.CopyFrom(model)
    return other


def spread_biases(model: ModelProto) -> None:
    """Gives every operator vectors of its own: checkpoints have zeros and ones, which the exporter stores once."""
    rng = np.random.default_rng(0)
    vectors = {tensor.name: value for tensor in model.graph.initializer if (value := _vector(tensor)) is not None}
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name in vectors:
                noise = rng.normal(scale=0.3, size=vectors[name].shape).astype(np.float32)
                node.input[at] = f"{node.output[0]}/vector{at}"
                model.graph.initializer.append(numpy_helper.from_array(vectors[name] + noise, node.input[at]))


def fuse(model: ModelProto) -> ModelProto:
    """Runs what comes before `packed`, with biases spread; the returned copy is from before any fusion."""
    spread_biases(model)
    constant_reshapes.apply(model)
    before = copy(model)
    skip_layer_norm.apply(model)
    bias_gelu.apply(model)
    return before


def pack(model: ModelProto) -> manifest_pb2.PassReport:
    """Runs `packed` and `embed_layer_norm`; the report is that of the latter."""
    packed.apply(model)
    return embed_layer_norm.apply(model)


def feeds(padded: Padded, *, empty: int = 1, fill: Sequence[int] = (5,)) -> dict[str, npt.NDArray[np.int32]]:
    """Inputs of a packed graph: ``empty`` rows without tokens, the rows of ``padded``, a row for each of ``fill``.

    ``padded`` has input_ids, token_type_ids and attention_mask, [rows, length], padded on the right.
    """
    inside = padded["attention_mask"].astype(bool)
    lengths = np.concatenate([np.zeros(empty, int), inside.sum(axis=1), np.array(fill, int)])
    length = max(inside.shape[1], *fill, 1)
    taken = np.arange(length) < lengths[:, None]
    places = np.arange(taken.size).reshape(taken.shape)
    more = sum(fill)
    arrays = {
        "input_ids": np.concatenate([padded["input_ids"][inside], np.full(more, WORD)]),
        "token_type_ids": np.concatenate([padded["token_type_ids"][inside], np.zeros(more, int)]),
        "position_ids": np.concatenate([np.arange(number) for number in lengths]),
        "cumulative_lengths": np.concatenate([[0], np.cumsum(lengths)]),
        "token_offset": np.concatenate([places[taken], places[~taken]]).reshape(taken.shape),
    }
    return {name: value.astype(np.int32) for name, value in arrays.items()}


def run(model: ModelProto, padded: Padded, *, empty: int = 1, fill: Sequence[int] = (5,)) -> npt.NDArray[np.float32]:
    """The first output of a packed graph for the rows of ``padded``, on a CPU."""
    here = copy(model)
    unpacked.apply(here)
    result = graphs.run(here, feeds(padded, empty=empty, fill=fill))
    rows = len(padded["input_ids"])
    assert len(result) == empty + rows + len(fill)
    return result[empty : empty + rows]


def close(result: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], *, tolerance: float = 1e-5) -> bool:
    """Whether two results differ by rounding only, relative to the largest number."""
    return bool(np.abs(result - expected).max() <= tolerance * max(1, float(np.abs(expected).max())))


def read_by(model: ModelProto, name: str) -> list[str]:
    """Types of the operators that read a tensor."""
    return [node.op_type for node in model.graph.node if name in node.input]


def _vector(tensor: TensorProto) -> npt.NDArray[np.float32] | None:
    value = numpy_helper.to_array(tensor)
    return value if value.dtype == np.float32 and value.ndim == 1 and value.size > 1 else None
