"""Processes that share a port share the GPUs too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pairwire.server.config import ServerConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.errors import RuntimeMissing
from pairwire.server.processes.devices import with_own_device
from pairwire.server.runtime.nvidia import Gpu


def gpus(count: int) -> Sequence[Gpu]:
    return [Gpu(index, "NVIDIA H200", 1 << 37, 0, (9, 0), "580.95.05", "13.0") for index in range(count)]


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_the_gpus_go_round(provider: str) -> None:
    config = ServerConfig(engine=EngineConfig(provider=provider, workers=3))  # type: ignore[arg-type]  # two of three
    own = [with_own_device(config, number, lambda: gpus(3)) for number in range(7)]
    assert [each.engine.cuda_device for each in own] == [0, 1, 2, 0, 1, 2, 0]
    assert {each.engine.workers for each in own} == {3}  # all else stays
    assert config.engine.cuda_device == -1


def test_only_visible_gpus_go_round_and_are_counted_as_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    own = [with_own_device(ServerConfig(), number, lambda: gpus(4)) for number in range(3)]
    assert [each.engine.cuda_device for each in own] == [0, 1, 0]


@pytest.mark.parametrize("engine", [EngineConfig(cuda_device=1), EngineConfig(cuda_device=0)])
def test_a_gpu_that_is_asked_for_is_kept(engine: EngineConfig) -> None:
    config = ServerConfig(engine=engine)
    assert with_own_device(config, 2, lambda: gpus(4)) is config


def test_the_driver_is_not_asked_where_models_run_on_the_cpu() -> None:
    def broken() -> Sequence[Gpu]:
        raise AssertionError("nobody needs to know")

    config = ServerConfig(engine=EngineConfig(provider="cpu"))
    assert with_own_device(config, 1, broken) is config


def test_without_gpus_nothing_changes() -> None:
    def missing() -> Sequence[Gpu]:
        raise RuntimeMissing("no NVIDIA driver is here", "install it")

    config = ServerConfig()
    assert with_own_device(config, 1, missing) is config
    assert with_own_device(config, 1, lambda: gpus(0)) is config
