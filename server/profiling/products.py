"""How many operations a run takes: those that its kernels executed, and those that its tokens are worth.

One multiplication with its addition counts as two operations. *Useful* operations of a row of S tokens are those of
the model as it was trained, nothing pruned and nothing padded: S x layers x (2 x weights of a layer + 4 x S x width of
attention), which for a BERT is S x layers x (24 h^2 + 4 S h). *Executed* ones are read off the kernels' shapes. A graph
that leaves out what cannot matter executes fewer than are useful; padding makes it execute more.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..runtime.base import Int32Array
from .events import Kernel, Shape

INT8 = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"}
)
"""Products of 8-bit integers."""
_HEADS = frozenset({"Gemm", "FusedGemm", "QGemm"})
"""Products of two matrices: the exporter makes them of layers that see one vector a row, and no other."""
_PRODUCTS = INT8 | _HEADS | {"MatMul", "FusedMatMul"}
_WHOLE_ATTENTION = frozenset({"Attention", "QAttention"})
"""Attention with the projections of queries, keys and values inside."""
ABSORBED = "/absorbed/"
"""In the names of an attention's nodes where the projections of keys and values stand on the side of its one query: by
``/absorbed/keys`` [heads, d, hidden] and ``/absorbed/values`` [heads, hidden, d] no token is multiplied any more."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a token costs in the model as it was trained."""

    layers: int
    """With attention; 0 in a model that has none."""
    weights: int
    """Weights by which a token is multiplied, in all layers together."""
    width: int
    """Heads times their dimensions; 0 without attention."""

    def operations(self, lengths: Int32Array | Sequence[int]) -> int:
        """Useful operations of rows of this many tokens."""
        return sum(int(tokens) * (2 * self.weights + 4 * int(tokens) * self.width * self.layers) for tokens in lengths)


def work_of(kernels: Sequence[Kernel], length: int) -> Work:
    """Read off one run of full rows of ``length`` tokens, pruned or not.

    What each layer has is counted, with as many nodes as that is true of: a head's layer of the same shape is none of
    them.
    """
    layers = sum(kernel.operator in _WHOLE_ATTENTION | {"Softmax", "MultiHeadAttention"} for kernel in kernels)
    shapes = Counter(shape for kernel in kernels for shape in _weights(kernel))
    whole = {shape: count // layers * layers if layers else count for shape, count in shapes.items()}
    widths = [width for kernel in kernels if (width := _width(kernel, length))]
    return Work(
        layers=layers,
        weights=sum(math.prod(shape) * count for shape, count in whole.items()),
        width=statistics.median_low(widths) if widths and layers else 0,
    )


def executed(kernels: Iterable[Kernel]) -> int:
    """Operations that the kernels' products took."""
    return sum(operations(kernel) for kernel in kernels)


def operations(kernel: Kernel) -> int:
    """Operations of a product of matrices; 0 of anything else."""
    if not kernel.inputs or not kernel.outputs:
        return 0
    first, output = kernel.inputs[0], kernel.outputs[0]
    if kernel.operator == "MultiHeadAttention":
        return 4 * first[0] * first[1] * _keys(kernel) * output[-1]
    if kernel.operator in _WHOLE_ATTENTION:
        return 2 * first[0] * first[1] * output[-1] * (3 * first[-1] + 2 * first[1])
    if kernel.operator not in _PRODUCTS:
        return 0
    return 2 * math.prod(output) * (_inner(kernel) if _of_activations(kernel) else first[-1])


def _weights(kernel: Kernel) -> list[Shape]:
    """[inputs, outputs] of the layers that a kernel applies to tokens."""
    if kernel.operator in _WHOLE_ATTENTION and kernel.inputs and kernel.outputs:
        return [(kernel.inputs[0][-1], 3 * kernel.outputs[0][-1])]
    if ABSORBED in kernel.node:
        return _absorbed_weights(kernel)
    if kernel.operator not in _PRODUCTS - _HEADS or not operations(kernel) or _of_activations(kernel):
        return []
    return [(kernel.inputs[0][-1], kernel.outputs[0][-1])]


def _absorbed_weights(kernel: Kernel) -> list[Shape]:
    if kernel.node.endswith(f"{ABSORBED}keys"):
        heads, dimensions, hidden = kernel.inputs[1]
    elif kernel.node.endswith(f"{ABSORBED}values"):
        heads, hidden, dimensions = kernel.inputs[1]
    else:
        return []
    return [(hidden, heads * dimensions)]


def _of_activations(kernel: Kernel) -> bool:
    """Whether both factors are activations, as in attention: constants have two dimensions, or are packed away."""
    return kernel.operator in ("MatMul", "FusedMatMul") and len(kernel.inputs) > 1 and len(kernel.inputs[1]) > 2


def _inner(kernel: Kernel) -> int:
    """The dimension that a product of activations adds up over, whichever factor is transposed."""
    first, second, output = kernel.inputs[0], kernel.inputs[1], kernel.outputs[0]
    squared = math.prod(first) * math.prod(second) / (math.prod(output) * math.prod(output[:-2]))
    return round(math.sqrt(squared))


def _width(kernel: Kernel, length: int) -> int:
    """Heads times dimensions, if the kernel is one of attention's."""
    if kernel.operator in _WHOLE_ATTENTION | {"MultiHeadAttention"} and kernel.outputs:
        return kernel.outputs[0][-1]
    if ABSORBED in kernel.node or not _of_activations(kernel) or not operations(kernel):
        return 0
    output = kernel.outputs[0]
    rows_and_heads = math.prod(output[:-2])
    # Queries x keys x dimensions, or queries x dimensions x keys: what is neither queries nor keys is left.
    across = output[-1] * _inner(kernel) // length
    return across * rows_and_heads // max(1, _rows(kernel))


def _rows(kernel: Kernel) -> int:
    return kernel.outputs[0][0]


def _keys(kernel: Kernel) -> int:
    """Tokens that queries look at; keys are [rows, tokens, width] or [rows, heads, tokens, dimensions]."""
    if len(kernel.inputs) < 2:
        return kernel.inputs[0][1]
    return math.prod(kernel.inputs[1]) // (kernel.inputs[0][0] * kernel.inputs[0][-1])
