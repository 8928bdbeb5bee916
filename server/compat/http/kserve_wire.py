"""KServe v2 over REST: JSON, with raw contents behind it where a client sends or wants them so, <-> tensors.

With raw contents, the header ``Inference-Header-Content-Length`` tells where JSON ends; tensors follow in the order in
which they are named, each as long as its parameter ``binary_data_size`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np

from ...config import RequestLimits
from ...errors import InvalidInput
from ..kserve_parameters import Value
from ..kserve_tensors import BYTES, Tensor, elements_of, from_raw, from_values
from .answers import Answer, encode
from .exchange import Exchange
from .reading import decoded
from .texts import decode, is_unset

HEADER = "inference-header-content-length"
OCTETS = "application/octet-stream"
_SIZE = "binary_data_size"
_BINARY = "binary_data"
_MOST_DIMENSIONS = 2

Parameters = dict[str, bool | int | float | str]


class InferInput(msgspec.Struct):
    """A tensor of a request."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = None  # type: ignore[assignment]  # absent where raw contents follow
    parameters: Parameters | None = None


class InferOutput(msgspec.Struct):
    """A tensor that is wanted."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct):
    """Tensors for a model."""

    inputs: list[InferInput]
    id: str | None = None
    outputs: list[InferOutput] | None = None
    parameters: Parameters | None = None


class TensorAnswer(TypedDict):
    """A tensor of an answer; its data is missing where raw contents follow."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[float]]
    parameters: NotRequired[dict[str, int]]


class InferAnswer(TypedDict):
    """What a model gives."""

    model_name: str
    model_version: str
    outputs: list[TensorAnswer]
    id: NotRequired[str]


class Inferring(msgspec.Struct):
    """A request as it was read, and the raw contents behind it."""

    request: InferRequest
    raw: bytes


class InferReader:
    """Reads requests of ``infer``."""

    request_type: Any = InferRequest

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(InferRequest).decode

    def __call__(self, raw: bytes, exchange: Exchange) -> Inferring:
        """The request.

        Raises:
            InvalidInput: it is no such request.
        """
        given = exchange.header(HEADER)
        if not given:
            return Inferring(decoded(self._decode, raw, exchange.header("content-type")), b"")
        if not given.isdecimal() or int(given) > len(raw):
            raise InvalidInput(
                "Inference-Header-Content-Length",
                f"{given[:40]!r}, but the body has {len(raw)} bytes; JSON comes first",
            )
        size = int(given)
        return Inferring(decoded(self._decode, raw[:size]), raw[size:])


def tensors_of(inferring: Inferring, limits: RequestLimits) -> dict[str, Tensor]:
    """Inputs by name.

    Raises:
        InvalidInput: two of one name, or contents that do not fit.
    """
    found: dict[str, Tensor] = {}
    at = 0
    for each in inferring.request.inputs:
        if each.name in found:
            raise InvalidInput(f"inputs.{each.name}", "given twice")
        size = (each.parameters or {}).get(_SIZE)
        if size is None:
            found[each.name] = _from_json(each, limits)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(inferring.raw) - at:
            left = len(inferring.raw) - at
            raise InvalidInput(
                f"inputs.{each.name}.parameters.{_SIZE}",
                f"{size!r}, but {left} bytes follow the JSON; {HEADER} says where it ends",
            )
        if not is_unset(each.data):
            raise InvalidInput(f"inputs.{each.name}", f"has data and {_SIZE}; give one of them")
        found[each.name] = from_raw(each.name, each.datatype, each.shape, inferring.raw[at : at + size], limits)
        at += size
    if at != len(inferring.raw):
        raise InvalidInput("inputs", f"{len(inferring.raw) - at} bytes follow the JSON that belong to no input")
    return found


def parameters_of(request: InferRequest) -> Mapping[str, Value]:
    """Parameters of the whole request."""
    return request.parameters or {}


def answer_of(request: InferRequest, name: str, version: str, outputs: Sequence[Tensor]) -> Answer:
    """The response, with raw contents where they are asked for."""
    all_raw = parameters_of(request).get("binary_data_output") is True
    own = {each.name: (each.parameters or {}).get(_BINARY, all_raw) is True for each in request.outputs or ()}
    described: list[TensorAnswer] = []
    contents: list[bytes] = []
    for tensor in outputs:
        row: TensorAnswer = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if own.get(tensor.name, all_raw):
            contents.append(tensor.raw())
            row["parameters"] = {_SIZE: len(contents[-1])}
        else:
            row["data"] = np.ascontiguousarray(tensor.values).ravel()  # type: ignore[typeddict-item]  # a list in JSON
        described.append(row)
    answer: InferAnswer = {"model_name": name, "model_version": version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    head = encode(answer)
    if not contents:
        return Answer(head)
    return Answer(b"".join([head, *contents]), media_type=OCTETS, headers=((HEADER, str(len(head))),))


def _from_json(given: InferInput, limits: RequestLimits) -> Tensor:
    field = f"inputs.{given.name}.data"
    if is_unset(given.data):
        raise InvalidInput(field, f"missing; give the elements, or {_SIZE} and raw contents behind the JSON")
    count = elements_of(given.name, given.datatype, given.shape)
    data, kind = bytes(given.data), _kind(given.datatype)
    if given.datatype != BYTES and data.count(b",") > max(count, 1) * 2:
        raise InvalidInput(given.name, f"more elements than the {count} of shape {given.shape}")
    try:
        values: list[Any] = decode(_FLAT[kind], data, field)
    except InvalidInput:
        if len(given.shape) != _MOST_DIMENSIONS:
            raise
        nested = decode(_NESTED[kind], data, field)
        values = [value for row in nested for value in row]
    if kind == BYTES:
        values = [value.encode() for value in values]
    return from_values(given.name, given.datatype, given.shape, values, limits)


def _kind(datatype: str) -> str:
    """How elements are written in JSON."""
    if datatype in (BYTES, "BOOL"):
        return datatype
    return "FP" if datatype.startswith("FP") else "INT"


_FLAT: Mapping[str, Callable[[bytes], list[Any]]] = {
    BYTES: msgspec.json.Decoder(list[str]).decode,
    "BOOL": msgspec.json.Decoder(list[bool]).decode,
    "INT": msgspec.json.Decoder(list[int]).decode,
    "FP": msgspec.json.Decoder(list[float]).decode,
}
_NESTED: Mapping[str, Callable[[bytes], list[list[Any]]]] = {
    BYTES: msgspec.json.Decoder(list[list[str]]).decode,
    "BOOL": msgspec.json.Decoder(list[list[bool]]).decode,
    "INT": msgspec.json.Decoder(list[list[int]]).decode,
    "FP": msgspec.json.Decoder(list[list[float]]).decode,
}
