"""A module of torch -> an ONNX file: int64 inputs [rows, length], one float32 output [rows, n]."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .pooling import PROMPT_LENGTHS

_OPSET = 18
"""What optimum exports with."""
_ROWS, _LENGTH = 2, 16
"""Of the batch that the module is traced with; dims are named, so any other will do."""
_AXES = ("batch_size", "sequence_length")


@dataclass(frozen=True, slots=True)
class Traceable:
    """A module of ours and how it is traced; instead of a model that optimum knows."""

    module: torch.nn.Module
    """Takes the inputs by position and returns the output."""
    inputs: Sequence[str]
    context: AbstractContextManager[object] = field(default_factory=nullcontext)
    """What must be in force meanwhile."""

    def parameters(self) -> Any:
        """Those of the module."""
        return self.module.parameters()

    def write(self, output: str, file: Path) -> None:
        """Traces the module; ``output`` is the name of what it returns.

        Raises:
            RuntimeError, ValueError, TypeError: torch cannot trace it.
        """
        with self.context:
            trace(self.module, self.inputs, output, file)


def trace(module: torch.nn.Module, inputs: Sequence[str], output: str, file: Path) -> None:
    """Writes the graph of ``module``, which takes ``inputs`` by position and returns the output."""
    examples = {name: value for name, value in _examples().items() if name in inputs}
    axes = {name: dict(enumerate(_AXES[: value.ndim])) for name, value in examples.items()} | {output: {0: _AXES[0]}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tracer, about numbers that become constants: the graph is compared later
        torch.onnx.export(
            module.eval(),
            tuple(examples[name] for name in inputs),
            str(file),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def patched(model: Any) -> tuple[AbstractContextManager[object], Sequence[str]]:
    """What must be in force while a transformers model without a head is traced, and the inputs that it takes."""
    from optimum.exporters.tasks import TasksManager

    make = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=model.config.model_type, task="feature-extraction", library_name="transformers"
    )
    config = make(model.config)
    return config.patch_model_for_export(model), list(config.inputs)


def _examples() -> dict[str, torch.Tensor]:
    ids = torch.arange(_ROWS * _LENGTH).reshape(_ROWS, _LENGTH) % 7 + 3
    mask = torch.ones_like(ids)
    mask[1, _LENGTH // 2 :] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(ids),
        PROMPT_LENGTHS: torch.tensor([2, 3]),
    }
