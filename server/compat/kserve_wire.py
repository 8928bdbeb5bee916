"""KServe v2's messages over gRPC: large ones are read within bounds; tensors and parameters in them, and in answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from pairwire.foreign import kserve_pb2

from ..config import RequestLimits
from ..errors import InvalidInput, Unsupported
from ..rpc.fields import LENGTH_DELIMITED, Field, fields_of
from ..rpc.wire import Unreadable, explain
from .kserve_parameters import Value
from .kserve_tensors import BYTES, Tensor, from_raw, from_values

_REQUEST = kserve_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name
_INPUTS, _RAW = _REQUEST["inputs"].number, _REQUEST["raw_input_contents"].number
_CONTENTS = kserve_pb2.ModelInferRequest.InferInputTensor.DESCRIPTOR.fields_by_name["contents"].number
_TEXTS = kserve_pb2.InferTensorContents.DESCRIPTOR.fields_by_name["bytes_contents"].number
_MOST_FIELDS = 1000
"""Of a large message, beside the elements of its tensors: a model has a few inputs and parameters."""
_MEMORY_OF_A_NUMBER = 8
"""Bytes that a number takes once it is read; in a message it may take one."""

_TYPED = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
_ELSEWHERE = "shared_memory_region"


def read_large(message_type: type[Message], raw: bytes, limits: RequestLimits) -> Message | Unreadable:
    """The message of these bytes, looked through before it takes memory; raises nothing."""
    try:
        _check(raw, limits)
        return message_type.FromString(raw)
    except InvalidInput as error:
        return Unreadable(error)
    except DecodeError:
        return Unreadable(explain(message_type, raw, limits))


def tensors_of(request: kserve_pb2.ModelInferRequest, limits: RequestLimits) -> dict[str, Tensor]:
    """The inputs of a request by name.

    Raises:
        InvalidInput: contents that do not fit, are given twice, or not at all.
        Unsupported: an input in shared memory.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            "raw_input_contents", f"{len(raw)} of them for {len(request.inputs)} inputs; give one for each, in order"
        )
    found: dict[str, Tensor] = {}
    for index, given in enumerate(request.inputs):
        name = given.name
        if name in found:
            raise InvalidInput(f"inputs.{name}", "given twice")
        if given.parameters and _ELSEWHERE in given.parameters:
            raise Unsupported(f"inputs.{name}: shared memory is not read; send the contents")
        if not raw:
            found[name] = _typed(given, limits)
        elif given.HasField("contents"):
            raise InvalidInput(f"inputs.{name}", "contents are given beside raw_input_contents; give one of them")
        else:
            found[name] = from_raw(name, given.datatype, given.shape, raw[index], limits)
    return found


def parameters_of(given: Mapping[str, kserve_pb2.InferParameter]) -> dict[str, Value]:
    """Parameters by name.

    Raises:
        InvalidInput: one without a value, or with one of a kind that came later.
    """
    found: dict[str, Value] = {}
    for name, parameter in given.items():
        chosen = parameter.WhichOneof("parameter_choice")
        if chosen is None:
            raise InvalidInput(f"parameters.{name}", "no value that is known; give a bool, int64, string or uint64")
        found[name] = getattr(parameter, chosen)
    return found


def wanted_of(request: kserve_pb2.ModelInferRequest) -> list[str]:
    """Names of the outputs that are asked for.

    Raises:
        Unsupported: one as classes, or in shared memory.
    """
    for output in request.outputs:
        if "classification" in output.parameters:
            raise Unsupported(f"outputs.{output.name}: no classification here; sort the scores, or ask for rank")
        if _ELSEWHERE in output.parameters:
            raise Unsupported(f"outputs.{output.name}: shared memory is not written; read the contents")
    return [output.name for output in request.outputs]


def encode(request: kserve_pb2.ModelInferRequest, model: str, version: str, outputs: Sequence[Tensor]) -> Message:
    """The answer to ModelInfer: raw contents always, for that is all that tritonclient reads."""
    response = kserve_pb2.ModelInferResponse(model_name=model, model_version=version, id=request.id)
    for tensor in outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.raw())
    return response


def _typed(given: kserve_pb2.ModelInferRequest.InferInputTensor, limits: RequestLimits) -> Tensor:
    contents: Any = given.contents
    filled = [field.name for field, _ in contents.ListFields()]
    expected = _TYPED.get(given.datatype, "")
    if filled and expected and filled != [expected]:
        raise InvalidInput(
            f"inputs.{given.name}", f"{', '.join(filled)} for datatype {given.datatype}, expected {expected}"
        )
    values = getattr(contents, expected) if expected else ()
    return from_values(given.name, given.datatype, given.shape, values, limits)


def _check(raw: bytes, limits: RequestLimits) -> None:
    """Refuses early what would take much more memory than it has bytes."""
    numbers, fields = 0, 0
    for field in fields_of(raw, 0, len(raw)):
        fields += 1
        if field.number == _INPUTS and field.wire_type == LENGTH_DELIMITED:
            for inner in fields_of(raw, field.body, field.end):
                fields += 1
                _bound(fields)
                if inner.number == _CONTENTS and inner.wire_type == LENGTH_DELIMITED:
                    numbers += _numbers(raw, inner, limits)
        _bound(fields)
    if numbers * _MEMORY_OF_A_NUMBER > limits.max_message_bytes:
        raise InvalidInput(
            "inputs",
            f"up to {numbers} numbers of {_MEMORY_OF_A_NUMBER} bytes exceed --max-message-bytes "
            f"{limits.max_message_bytes}; send several smaller requests, or raw_input_contents",
        )


def _numbers(raw: bytes, contents: Field, limits: RequestLimits) -> int:
    """At most how many numbers the contents of a tensor have."""
    seen, numbers = Counter[int](), 0
    for field in fields_of(raw, contents.body, contents.end):
        seen[field.number] += 1
        if seen[field.number] > limits.max_items:
            raise InvalidInput("inputs", f"more than --max-items {limits.max_items}; send several smaller requests")
        if field.number != _TEXTS:
            numbers += max(1, field.end - field.body)
    return numbers


def _bound(fields: int) -> None:
    if fields > _MOST_FIELDS:
        raise InvalidInput("request", f"more than {_MOST_FIELDS} fields beside its tensors' elements")
