"""Tensors that no file has and that code makes when a model is built: rotary tables, ALiBi, positions.

transformers 5 builds every model without numbers, fills in those of the files, and asks the model's code for the rest.
Code written for transformers 4 does not answer, and what is left is whatever lay in memory. Here such tensors get
numbers that no code would give, before it is asked; those that still have them afterwards are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import WeightsInvalid
from .releases import OLDER

_NAMED = 3


def on_meta(model: Any) -> list[str]:
    """Names of the tensors of a model that are in no file and have no numbers yet."""
    return [name for name, tensor in _tensors(model) if tensor.is_meta]


def mark(model: Any, names: Sequence[str]) -> None:
    """Fills tensors with numbers that no code gives."""
    wanted = set(names)
    for name, tensor in _tensors(model):
        if name in wanted and not tensor.is_meta and (impossible := _impossible(tensor)) is not None:
            tensor.fill_(impossible)


def check(model: Any, checkpoint: str) -> None:
    """Raises where code has not filled a tensor.

    Raises:
        WeightsInvalid: which, and what to do.
    """
    left = [name for name, tensor in _tensors(model) if _is_marked(tensor)]
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        raise WeightsInvalid(
            f"{checkpoint}: its code makes {', '.join(left[:_NAMED])}{more} when a model is built, which transformers 5"
            f" leaves empty; export it with transformers 4: {OLDER}"
        )


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    for prefix, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            if module._buffers.get(name) is not None:
                yield f"{prefix}.{name}" if prefix else name, module._buffers[name]


def _impossible(tensor: Any) -> float | int | None:
    import torch

    if tensor.is_floating_point():
        return float("nan")
    return None if tensor.dtype == torch.bool else int(torch.iinfo(tensor.dtype).min)


def _is_marked(tensor: Any) -> bool:
    impossible = _impossible(tensor)
    if impossible is None or not tensor.numel() or tensor.is_meta:
        return False
    first = tensor.flatten()[0]
    return bool(first.isnan()) if tensor.is_floating_point() else int(first) == impossible
