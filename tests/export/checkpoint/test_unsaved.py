from __future__ import annotations

from typing import Any

import pytest

from pairwire.export.checkpoint import unsaved
from pairwire.export.errors import WeightsInvalid


def model(*, fills: bool) -> Any:
    """As transformers 5 makes one: built without numbers, made room for, and its code asked to fill the room."""
    import torch

    class Rotary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cos", torch.ones(4, 2), persistent=False)
            self.register_buffer("positions", torch.arange(4), persistent=False)
            self.register_buffer("saved", torch.ones(2))

    with torch.device("meta"):
        built = torch.nn.Sequential(Rotary())
    names = unsaved.on_meta(built)
    assert sorted(names) == ["0.cos", "0.positions"]  # what files have is not asked for
    built.to_empty(device="cpu")
    unsaved.mark(built, names)
    if fills:
        built[0].cos.fill_(1)
        built[0].positions.zero_()
    return built


def test_tensors_that_code_has_filled_are_taken() -> None:
    unsaved.check(model(fills=True), "mine")


def test_tensors_that_nobody_has_filled_are_refused_by_name() -> None:
    with pytest.raises(WeightsInvalid, match=r"mine: its code makes 0\.(cos|positions), 0\.\w+ when a model is built"):
        unsaved.check(model(fills=False), "mine")
