"""What KServe v2 says of models and of the server: metadata, configuration, statistics, index; pure functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from pairwire.foreign import kserve_pb2

from ..engine.engine import Engine
from ..engine.kinds import ModelKind
from ..engine.results import ModelInfo
from ..errors import InvalidInput, ModelNotFound
from ..repository.control import Control
from ..repository.repository import Listed
from .kserve_inference import DOCUMENTS, ROWS, outputs_of
from .kserve_parameters import PRIORITIES
from .kserve_statistics import Duration, ModelCounts, Statistics

PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("model_configuration", "schedule_policy", "binary_tensor_data", "parameters", "statistics")

_TYPES = {
    "BYTES": kserve_pb2.TYPE_STRING,
    "INT64": kserve_pb2.TYPE_INT64,
    "FP32": kserve_pb2.TYPE_FP32,
    "UINT32": kserve_pb2.TYPE_UINT32,
}
_ANY = -1

Shape = tuple[str, str, tuple[int, ...]]
"""Name, datatype and sizes of a tensor; -1 is any size."""


def check_version(info: ModelInfo, asked: str) -> None:
    """Refuses a version that there is none of.

    Raises:
        InvalidInput: it is no number above 0.
        ModelNotFound: it is another than the one.
    """
    if asked in ("", info.version):
        return
    if not asked.isdecimal() or not int(asked):
        raise InvalidInput("model_version", f"{asked!r} is no version; leave it empty, or say {info.version}")
    raise ModelNotFound(f"model {info.name!r} has no version {asked}; there is {info.version}")


def server_metadata() -> kserve_pb2.ServerMetadataResponse:
    """Who answers, and what it can do beyond the protocol's core."""
    return kserve_pb2.ServerMetadataResponse(name="pairwire", version=version("pairwire"), extensions=EXTENSIONS)


def inputs_of(info: ModelInfo) -> list[Shape]:
    """Every input that a model takes; which go together: kserve_inference.py."""
    rows: list[Shape] = [] if info.manifest.HasField("template") else [(each, "INT64", (_ANY, _ANY)) for each in ROWS]
    if info.kind is not ModelKind.CROSS_ENCODER:
        return [("text", "BYTES", (_ANY,)), *rows[:2]]
    single = [] if info.manifest.HasField("template") else ["text"]
    texts = ["query", *DOCUMENTS, "text_a", "text_b", *single]
    return [*((each, "BYTES", (_ANY,)) for each in texts), *rows]


def outputs_with_shapes(info: ModelInfo) -> list[Shape]:
    """Every output that a model has."""
    labels, whole = len(info.manifest.labels), info.manifest.default_dimensions or info.manifest.dimensions
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "score": ("FP32", (_ANY, labels)),
        "logit": ("FP32", (_ANY, labels)),
        "rank": ("INT64", (_ANY,)),
        "embedding": ("FP32", (_ANY, whole)),
        "indices": ("UINT32", (_ANY,)),
        "values": ("FP32", (_ANY,)),
        "counts": ("UINT32", (_ANY,)),
    }
    return [(name, *shapes[name]) for name in outputs_of(info)]


def model_metadata(info: ModelInfo) -> kserve_pb2.ModelMetadataResponse:
    """Inputs and outputs of a model."""

    def described(shapes: Sequence[Shape]) -> list[kserve_pb2.ModelMetadataResponse.TensorMetadata]:
        make = kserve_pb2.ModelMetadataResponse.TensorMetadata
        return [make(name=name, datatype=datatype, shape=sizes) for name, datatype, sizes in shapes]

    return kserve_pb2.ModelMetadataResponse(
        name=info.name,
        versions=[info.version],
        platform=PLATFORM,
        inputs=described(inputs_of(info)),
        outputs=described(outputs_with_shapes(info)),
    )


def model_config(info: ModelInfo) -> kserve_pb2.ModelConfig:
    """A model as Triton would be configured for it: every input may be left out, for they are alternatives."""
    gpu = info.runtime.cuda
    group = kserve_pb2.ModelInstanceGroup(
        name=info.name,
        count=info.workers,
        kind=kserve_pb2.ModelInstanceGroup.KIND_CPU if gpu is None else kserve_pb2.ModelInstanceGroup.KIND_GPU,
        gpus=[] if gpu is None else [gpu.device_id],
    )
    config = kserve_pb2.ModelConfig(
        name=info.name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=0,
        input=[
            kserve_pb2.ModelInput(name=name, data_type=_TYPES[datatype], dims=sizes, optional=True)
            for name, datatype, sizes in inputs_of(info)
        ],
        output=[
            kserve_pb2.ModelOutput(name=name, data_type=_TYPES[datatype], dims=sizes)
            for name, datatype, sizes in outputs_with_shapes(info)
        ],
        instance_group=[group],
        dynamic_batching=kserve_pb2.ModelDynamicBatching(
            priority_levels=len(PRIORITIES) - 1,
            default_priority_level=2,
            default_queue_policy=kserve_pb2.ModelQueuePolicy(allow_timeout_override=True),
        ),
        model_transaction_policy=kserve_pb2.ModelTransactionPolicy(decoupled=False),
        response_cache=kserve_pb2.ModelResponseCache(enable=False),
    )
    for key, value in (("variant", info.variant), ("max_length", str(info.max_length)), ("kind", info.kind.value)):
        config.parameters[key].string_value = value
    return config


def model_statistics(info: ModelInfo, statistics: Statistics) -> kserve_pb2.ModelStatistics:
    """What a model has done."""
    found = kserve_pb2.ModelStatistics(name=info.name, version=info.version)

    def look(counts: ModelCounts) -> None:
        found.last_inference, found.inference_count, found.execution_count = counts.last_ms, counts.rows, counts.batches
        stats = found.inference_stats
        _fill(stats.success, counts.success)
        _fill(stats.fail, counts.fail)
        _fill(stats.queue, counts.queue)
        _fill(stats.compute_input, counts.tokenize)
        _fill(stats.compute_infer, counts.compute)
        stats.compute_output.count = counts.success.count  # perf_analyzer wants as many; encoding is not timed
        for rows in sorted(counts.by_rows):
            _fill(found.batch_stats.add(batch_size=rows).compute_infer, counts.by_rows[rows])

    statistics.read(info.name, look)
    return found


def _fill(message: kserve_pb2.StatisticDuration, duration: Duration) -> None:
    message.count, message.ns = duration.count, duration.ns


async def model_index(engine: Engine, control: Control, serves: Callable[[str], bool]) -> list[Listed]:
    """Every model, and where there is a repository every version, by name; ``serves`` tells whether a model works."""
    listed = await asyncio.to_thread(control.index)
    if listed is None:
        listed = [Listed(name, engine.models[name].version, True, "") for name in sorted(engine.models)]
    return [
        row if not row.serves or serves(row.model) else replace(row, serves=False, reason="its last run failed")
        for row in listed
    ]


def version_of(parameters: Mapping[str, object]) -> str:
    """The version that parameters of a call to load a model name; empty for the newest.

    Raises:
        InvalidInput: there is another parameter: packages bring their own configuration.
    """
    for name, value in parameters.items():
        if name != "version":
            raise InvalidInput(f"parameters[{name!r}]", "unknown; a model is loaded as its package says")
        return str(value)
    return ""
