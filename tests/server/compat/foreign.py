"""Calls of other people's protocols, from their messages alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from pairwire.foreign import kserve_pb2, tei_pb2
from pairwire.server.compat.kserve_tensors import DTYPES, Tensor
from pairwire.server.compat.tei import SERVICES

_TEI_METHODS = {
    method.name: (service, method)
    for service in tei_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
_PACKAGE = {"inference": kserve_pb2, "tei.v1": tei_pb2}


def tei(channel: grpc.aio.Channel, name: str) -> Any:
    """A method of tei.v1, e.g. ``EmbedStream``."""
    service, method = _TEI_METHODS[name]
    assert service.full_name in SERVICES
    return _method(channel, service, method)


def kserve(channel: grpc.aio.Channel, name: str) -> Any:
    """A method of inference.GRPCInferenceService."""
    service = kserve_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    return _method(channel, service, service.methods_by_name[name])


def _method(channel: grpc.aio.Channel, service: Any, method: Any) -> Any:
    kind = {
        (False, False): channel.unary_unary,
        (True, True): channel.stream_stream,
        (True, False): channel.stream_unary,
    }
    messages = _PACKAGE[service.file.package]
    make: Any = kind[method.client_streaming, method.server_streaming]
    return make(
        f"/{service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(messages, method.output_type.name).FromString,
    )


def texts(name: str, values: Sequence[str | bytes], shape: Sequence[int] | None = None) -> Tensor:
    """A tensor of texts."""
    raw = [each.encode() if isinstance(each, str) else each for each in values]
    return Tensor(name, "BYTES", tuple(shape or (len(raw),)), raw)


def numbers(name: str, values: Any, datatype: str = "INT64") -> Tensor:
    """A tensor of numbers."""
    array = np.array(values, DTYPES[datatype])
    return Tensor(name, datatype, array.shape, array)


def request(
    model: str,
    *tensors: Tensor,
    outputs: Iterable[str] = (),
    typed: bool = False,
    parameters: Mapping[str, bool | int | str] | None = None,
    **fields: str,
) -> kserve_pb2.ModelInferRequest:
    """A ModelInferRequest with raw contents, or with ``typed`` ones."""
    message = kserve_pb2.ModelInferRequest(model_name=model, **fields)
    for tensor in tensors:
        given = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not typed:
            message.raw_input_contents.append(tensor.raw())
        elif isinstance(tensor.values, list):
            given.contents.bytes_contents.extend(tensor.values)
        else:
            given.contents.int64_contents.extend(tensor.values.ravel().tolist())
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    return message


def arrays(response: kserve_pb2.ModelInferResponse) -> dict[str, npt.NDArray[Any]]:
    """The outputs of an answer by name."""
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
