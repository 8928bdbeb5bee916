"""ONNX Runtime's profile -> kernels of each run, in order, each with its own time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Event = Mapping[str, Any]

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators whose events span those of the nodes inside them."""

_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One node of one run."""

    operator: str
    node: str
    seconds: float
    """Of its own: without the nodes inside it. The profile counts in whole microseconds."""
    inputs: tuple[Shape, ...]
    """Of activations and of constants that were not packed into the kernel."""
    outputs: tuple[Shape, ...]
    bytes: int
    """Activations read and written; packed weights are not among them."""


def kernels_of_runs(events: Sequence[Event]) -> list[list[Kernel]]:
    """The kernels of each ``session.run``, in the order in which they began.

    A session must have run on one thread: what overlaps is then inside a control flow operator.
    """
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: int(event["ts"]))
    nodes = [event for event in events if event.get("cat") == "Node" and str(event["name"]).endswith(_SUFFIX)]
    nodes.sort(key=lambda event: (int(event["ts"]), -int(event["dur"]), not _is_control_flow(event)))
    return [_kernels([node for node in nodes if _within(node, run)]) for run in runs]


def fastest(runs: Sequence[Sequence[Kernel]]) -> list[Kernel]:
    """Each kernel at its fastest in repeats of one run: whatever else the machine does only ever adds.

    Raises:
        ValueError: no run, or runs of unlike nodes.
    """
    if not runs or len({tuple(kernel.node for kernel in run) for run in runs}) != 1:
        raise ValueError(f"{len(runs)} runs are not repeats of one")
    return [
        dataclasses.replace(same[0], seconds=min(kernel.seconds for kernel in same)) for same in zip(*runs, strict=True)
    ]


def _within(node: Event, run: Event) -> bool:
    return int(run["ts"]) <= int(node["ts"]) < int(run["ts"]) + int(run["dur"])


def _kernels(nodes: Sequence[Event]) -> list[Kernel]:
    """Takes from each control flow operator what the nodes directly inside it took."""
    own = [int(node["dur"]) for node in nodes]
    around: list[int] = []
    for at, node in enumerate(nodes):
        while around and int(node["ts"]) >= _end(nodes[around[-1]]):
            around.pop()
        if around:
            own[around[-1]] -= int(node["dur"])
        if _is_control_flow(node):
            around.append(at)
    return [_kernel(node, max(0, microseconds) / 1e6) for node, microseconds in zip(nodes, own, strict=True)]


def _is_control_flow(node: Event) -> bool:
    return node["args"]["op_name"] in CONTROL_FLOW


def _end(node: Event) -> int:
    return int(node["ts"]) + int(node["dur"])


def _kernel(node: Event, seconds: float) -> Kernel:
    args = node["args"]
    return Kernel(
        operator=str(args["op_name"]),
        node=str(node["name"]).removesuffix(_SUFFIX),
        seconds=seconds,
        inputs=_shapes(args.get("input_type_shape", ())),
        outputs=_shapes(args.get("output_type_shape", ())),
        bytes=int(args.get("activation_size", 0)) + int(args.get("output_size", 0)),
    )


def _shapes(entries: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Shape, ...]:
    """Each entry is ``{"float": [2, 3]}``."""
    return tuple(tuple(shape) for entry in entries for shape in entry.values())
