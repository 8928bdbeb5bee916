"""A module of torch -> an ONNX file: int64 inputs [rows, length], one float32 output [rows, n]."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..storage import HELD_BYTES
from .pooling import PROMPT_LENGTHS
from .ways import Tracer, Way

_OPSET = 18
"""What optimum exports with."""
_ROWS, _LENGTH = 4, 24
"""Of the batch that the module is traced with; dims are named, so any other will do."""
_AXES = ("batch_size", "sequence_length")
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
_SEED = 0


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

    def write(self, output: str, file: Path, tracer: Tracer, vocabulary: int, longest: int) -> None:
        """Traces the module; ``output`` is the name of what it returns.

        ``vocabulary`` is how many ids there are, ``longest`` the most tokens of a row.

        Raises:
            Exception: torch, or code that comes with the checkpoint, cannot be traced.
        """
        examples = {name: value for name, value in _examples(vocabulary, longest).items() if name in self.inputs}
        with self.context, _silent(), torch.no_grad(), warnings.catch_warnings():
            # Of a tracer, about numbers that become constants: the graph is compared later.
            warnings.simplefilter("ignore")
            if tracer is Tracer.EXPORT:
                _export(self.module.eval(), self.inputs, examples, output, file, longest)
            else:
                _script(self.module.eval(), self.inputs, examples, output, file)


class Chain(torch.nn.Module):
    """Modules of sentence-transformers, one after the other: inputs by position -> the feature ``output``."""

    def __init__(self, modules: Sequence[Any], inputs: Sequence[str], output: str) -> None:
        """``inputs`` are the names of what `forward` is given, in order."""
        super().__init__()
        self._inputs, self._output = inputs, output
        # Not one list: the first number in the name of a node is that of its layer.
        self.first, self.rest = modules[0], torch.nn.ModuleList(modules[1:])

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Rows are padded on the right."""
        features: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        for module in (self.first, *self.rest):
            features = module(features)
        return torch.as_tensor(features[self._output])


def prepared(model: Any, way: Way) -> AbstractContextManager[object]:
    """What must be in force while a transformers model without a head is traced."""
    if way.tracer is not Tracer.OPTIMUM:
        return _as_it_is()
    from optimum.exporters.tasks import TasksManager

    make = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=model.config.model_type, task="feature-extraction", library_name="transformers"
    )
    patched: AbstractContextManager[object] = make(model.config).patch_model_for_export(model)
    return patched


def inputs_of(transformer: Any) -> tuple[str, ...]:
    """What the ``Transformer`` of sentence-transformers feeds its model."""
    taken = transformer.model_forward_params  # None where it takes whatever it is given
    typed = _TYPES in transformer.tokenizer.model_input_names and (taken is None or _TYPES in taken)
    return (_IDS, _MASK, _TYPES) if typed else (_IDS, _MASK)


def _script(
    module: torch.nn.Module, inputs: Sequence[str], examples: dict[str, torch.Tensor], output: str, file: Path
) -> None:
    axes = {name: dict(enumerate(_AXES[: value.ndim])) for name, value in examples.items()} | {output: {0: _AXES[0]}}
    torch.onnx.export(
        module,
        tuple(examples[name] for name in inputs),
        str(file),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=axes,
        opset_version=_OPSET,
        dynamo=False,
    )


def _export(
    module: torch.nn.Module,
    inputs: Sequence[str],
    examples: dict[str, torch.Tensor],
    output: str,
    file: Path,
    longest: int,
) -> None:
    rows, length = torch.export.Dim(_AXES[0], min=1), torch.export.Dim(_AXES[1], min=2, max=longest)
    shapes = tuple(({0: rows} if examples[name].ndim == 1 else {0: rows, 1: length}) for name in inputs)
    # A star in a signature takes its shapes as one tuple.
    starred = isinstance(module, Chain)
    torch.onnx.export(
        module,
        tuple(examples[name] for name in inputs),
        str(file),
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=(shapes,) if starred else shapes,
        opset_version=_OPSET,
        dynamo=True,
        # Small weights lie in the file itself, as those of the other tracers.
        external_data=sum(tensor.nbytes for tensor in module.parameters()) > HELD_BYTES,
        verbose=False,
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps what torch prints away from the screen; where it fails, that is the whole graph."""
    logged, torch._C._jit_onnx_log = torch._C._jit_onnx_log, lambda *_parts: None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        torch._C._jit_onnx_log = logged


@contextlib.contextmanager
def _as_it_is() -> Iterator[None]:
    """While it is in force, lists of indices stay tensors.

    Mixtures of experts take rows by ``tensor.tolist()``; a tracer would write down the numbers of its own batch. A
    tensor of whole numbers takes the same rows.
    """
    to_list = torch.Tensor.tolist

    def indices(tensor: torch.Tensor) -> Any:
        return tensor if tensor.ndim == 1 and tensor.dtype == torch.int64 else to_list(tensor)

    torch.Tensor.tolist = indices  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.tolist = to_list  # type: ignore[method-assign]


def _examples(vocabulary: int, longest: int) -> dict[str, torch.Tensor]:
    """Random tokens, so that every expert of a mixture has some; one row is shorter than the others."""
    length = min(_LENGTH, longest)
    ids = torch.randint(vocabulary, (_ROWS, length), generator=torch.Generator().manual_seed(_SEED))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return {
        _IDS: ids,
        _MASK: mask,
        _TYPES: torch.zeros_like(ids),
        PROMPT_LENGTHS: torch.tensor([2, 3, 1, 2]),
    }
