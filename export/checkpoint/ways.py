"""The ways from a loaded checkpoint to ONNX, in the order in which they are tried.

optimum knows how a number of transformers' own classes are best traced, and is asked first where it is installed. What
it does not know, code that comes with a checkpoint included, is traced as it is: by torch's first exporter, whose
graphs the passes know, then by that of today (`torch.export`), and with plain attention before the fused one. A way
that fails costs some seconds. Whether a graph is right is not decided here: it is compared with the checkpoint.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import decoders, own_code


class Tracer(Enum):
    """What writes the graph."""

    OPTIMUM = "optimum"
    SCRIPT = "torch.jit.trace"
    EXPORT = "torch.export"


@dataclass(frozen=True, slots=True)
class Way:
    """How the checkpoint is loaded, and what writes its graph."""

    tracer: Tracer
    attention: str = "eager"
    """transformers' name of an implementation of attention."""

    def __str__(self) -> str:
        return (
            self.tracer.value if self.tracer is Tracer.OPTIMUM else f"{self.tracer.value}, {self.attention} attention"
        )


def ways(model: Any) -> Iterator[Way]:
    """Those of a transformers model; its weights may be given up already."""
    if not decoders.is_decoder(model) and is_known(model):
        yield Way(Tracer.OPTIMUM)
    for attention in ("eager", "sdpa"):
        yield Way(Tracer.SCRIPT, attention)
        if has_export():
            yield Way(Tracer.EXPORT, attention)


def is_known(model: Any) -> bool:
    """Whether optimum is installed and says how this class is traced."""
    if not has_optimum() or own_code.is_own(model):
        return False
    import optimum.exporters.onnx.model_configs  # noqa: F401  # which fills the manager
    from optimum.exporters.tasks import TasksManager

    with suppress(KeyError, ValueError):
        TasksManager.get_exporter_config_constructor(
            exporter="onnx", model_type=model.config.model_type, task="feature-extraction", library_name="transformers"
        )
        return True
    return False


def has_optimum() -> bool:
    """Whether optimum's exporter is installed."""
    return _is_there("optimum.exporters.onnx")


def has_export() -> bool:
    """Whether torch's exporter of today can write ONNX: it needs onnxscript."""
    return _is_there("onnxscript")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
