"""What the making of an int8 graph found out: code and error of each quantised tensor, and what each layer costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pairwire.v1 import manifest_pb2

METHOD = "minmax, searched"
"""Ranges go from the smallest to the largest value of a code that was searched for."""
GPTQ, NEAREST = "GPTQ", "nearest"
"""How weights were rounded: with errors taken back, or each to the nearest step."""

_COLUMNS = (
    *("layer", "products", "inputs x outputs", "plain error", "error"),
    *("exponent", "centred", "scale", "channels apart", "rounding"),
)
_LAYER = re.compile(r"(?:^|[/.])[A-Za-z_]+\.(\d+)(?=[/.])")
_OPERATOR = re.compile(r"/?(MatMul|Gemm)(_\d+)?(_output_\d+)?(/.*)?$")
_INNER = re.compile(r"^/?[A-Za-z_]*\.\d+/")


@dataclass(frozen=True, slots=True)
class TensorFinding:
    """A tensor whose products were quantised, or left in float32."""

    layer: str
    """E.g. ``layer 3``; the role again for what is in no layer."""
    role: str
    """Of its products, e.g. ``attention/self/key, query, value``."""
    inputs: int
    outputs: int
    """Of all its products together."""
    plain: float
    """Error of the products on unseen texts with the plain code (smallest to largest value, weights to the nearest
    step): root mean square, its mean taken away, relative to the output's deviation."""
    error: float
    """The same with the code that was chosen. It was chosen by this and a price on what would be cut off."""
    exponent: float | None
    """Share of a channel's size that went into the weights; None where nothing was balanced."""
    centred: bool
    """Whether a constant was taken away from each channel."""
    by_token: bool
    """Whether each token has its own scale."""
    apart: int
    """Channels set apart."""
    rounding: str
    """``GPTQ`` or ``nearest``."""
    in_float: bool = False
    """Whether it was left in float32 in the end."""


@dataclass(frozen=True, slots=True)
class LayerFinding:
    """What one layer alone costs: everything else in float32."""

    layer: str
    mean_diff: float
    """Mean difference of a score or vector component from the float32 graph's, on texts that calibrate nothing."""
    max_diff: float
    in_float: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one int8 graph."""

    tensors: Sequence[TensorFinding]
    """In the order of the graph."""
    layers: Sequence[LayerFinding] = field(default=())
    """In the order of the graph; empty where that was not asked for."""

    @property
    def quantised(self) -> list[TensorFinding]:
        """The tensors that are int8 in the end."""
        return [tensor for tensor in self.tensors if not tensor.in_float]

    @property
    def float_layers(self) -> list[str]:
        """Those left in float32, in the order of the graph."""
        return list(dict.fromkeys(tensor.layer for tensor in self.tensors if tensor.in_float))

    def as_calibration(self) -> manifest_pb2.Calibration:
        """The summary, without what the calibration texts were."""
        tensors = self.quantised
        calibration = manifest_pb2.Calibration(method=METHOD)
        if tensors:
            calibration.mean_error = sum(tensor.error for tensor in tensors) / len(tensors)
            calibration.plain_error = sum(tensor.plain for tensor in tensors) / len(tensors)
        balanced = sum(tensor.exponent is not None for tensor in tensors)
        apart = sum(tensor.apart for tensor in tensors)
        corrected = sum(tensor.rounding == GPTQ for tensor in tensors)
        calibration.search = (
            f"{len(tensors)} tensors: {balanced} balanced, {sum(tensor.centred for tensor in tensors)} centred,"
            f" {sum(tensor.by_token for tensor in tensors)} with a scale for each token, {apart} channels set apart;"
            f" weights of {corrected} rounded by {GPTQ}, of {len(tensors) - corrected} to the nearest step;"
            " biases corrected"
        )
        calibration.float_layers.extend(self.float_layers)
        return calibration


def place_of(names: Sequence[str]) -> tuple[str, str]:
    """(layer, role) of the products of one tensor, by the names of the nodes; the layer is "" where none shows."""
    roles = []
    layer = ""
    for name in names:
        found = _LAYER.search(name)
        layer = layer or (f"layer {found[1]}" if found else "")
        inner = _INNER.sub("", name[found.end() :].lstrip("/.")) if found else name.lstrip("/")
        roles.append(_OPERATOR.sub("", inner) or inner)
    first = roles[0].rpartition("/")[0]
    if first and all(role.rpartition("/")[0] == first for role in roles):
        return layer, f"{first}/{', '.join(role.rpartition('/')[2] for role in roles)}"
    return layer, ", ".join(roles)


def worst(layers: Sequence[LayerFinding], count: int) -> list[str]:
    """The ``count`` layers that cost most on average, the worst first."""
    return [each.layer for each in sorted(layers, key=lambda each: -each.mean_diff)[:count]]


def as_lines(findings: Findings) -> Iterator[str]:
    """Markdown for people."""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|" + "---|" * len(_COLUMNS)
    for tensor in findings.tensors:
        size, errors = f"{tensor.inputs} x {tensor.outputs}", f"{tensor.plain:.4f} | {tensor.error:.4f}"
        exponent = "-" if tensor.exponent is None else f"{tensor.exponent:g}"
        ways = f"{'yes' if tensor.centred else '-'} | {'token' if tensor.by_token else 'tensor'}"
        code = f"{exponent} | {ways} | {tensor.apart} | {tensor.rounding}"
        code = "left in float32 | - | - | - | -" if tensor.in_float else code
        yield f"| {tensor.layer} | {tensor.role} | {size} | {errors} | {code} |"
    if not findings.layers:
        return
    yield ""
    yield "Each layer alone in int8, everything else in float32, on texts that calibrate nothing:"
    yield ""
    yield "| in int8 | mean difference | max difference | |"
    yield "|---|---|---|---|"
    for layer in findings.layers:
        kept = "left in float32" if layer.in_float else ""
        yield f"| {layer.layer} | {layer.mean_diff:.1e} | {layer.max_diff:.1e} | {kept} |"
