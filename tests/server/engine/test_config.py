import pwd
from pathlib import Path
from typing import Literal

import pytest

from pairwire.server.cpus import usable_cpus
from pairwire.server.engine import EngineConfig
from pairwire.server.errors import ConfigInvalid


def test_defaults_follow_the_usable_cpus() -> None:
    config = EngineConfig()
    assert config.worker_count() == usable_cpus()
    assert 1 <= config.text_thread_count() <= 8


def test_given_numbers_are_kept() -> None:
    config = EngineConfig(workers=3, text_threads=5)
    assert (config.worker_count(), config.text_thread_count()) == (3, 5)


def test_models_on_a_gpu_leave_the_cpus_to_text() -> None:
    config = EngineConfig(intra_op_threads=3)
    assert config.worker_count(cuda=True) == 2  # one batch runs while the next is made ready
    assert config.text_thread_count(cuda=True) == min(8, max(1, usable_cpus() // 2))
    assert config.text_thread_count() == min(8, max(1, usable_cpus() // 4))


def test_given_numbers_are_kept_on_a_gpu_too() -> None:
    config = EngineConfig(workers=3, text_threads=5, batch_tokens=100)
    assert (config.worker_count(cuda=True), config.text_thread_count(cuda=True)) == (3, 5)
    assert config.cuda_batch_token_limit(200) == config.batch_token_limit(200) == 100


def test_batches_on_a_gpu_are_larger_unless_the_package_says_otherwise() -> None:
    config = EngineConfig()
    assert (config.batch_token_limit(), config.cuda_batch_token_limit()) == (512, 16_384)
    assert (config.batch_token_limit(200), config.cuda_batch_token_limit(200)) == (200, 200)


@pytest.mark.parametrize("provider", ["auto", "cpu", "cuda"])
def test_every_provider_can_be_asked_for(provider: Literal["auto", "cpu", "cuda"]) -> None:
    assert EngineConfig(provider=provider).provider == provider


def test_a_provider_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigInvalid, match=r"^provider: 'tensorrt' is none of auto, cpu, cuda$"):
        EngineConfig(provider="tensorrt")  # type: ignore[arg-type]  # what a file may say


def test_wide_runs_leave_fewer_workers() -> None:
    assert EngineConfig(intra_op_threads=10**6).worker_count() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cuda_device", -2),
        ("cuda_memory_bytes", -1),
        ("workers", -1),
        ("intra_op_threads", 0),
        ("batch_tokens", -1),
        ("queue_tokens", 0),
        ("text_threads", -1),
        ("token_cache_bytes", -1),
        ("score_cache_bytes", -1),
        ("vector_cache_bytes", -1),
        ("warmup_s", 0.0),
        ("warmup_s", float("nan")),
        ("probe_interval_s", -1.0),
    ],
)
def test_what_cannot_work_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigInvalid, match=f"{name}: .* cannot work"):
        EngineConfig(**{name: value})  # type: ignore[arg-type]  # any field


def test_costs_are_kept_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert EngineConfig().cost_directory() == Path("/caches/pairwire/costs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/valid")
    assert EngineConfig().cost_directory() == Path("/home/somebody/.cache/pairwire/costs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert EngineConfig().cost_directory() == Path("/home/somebody/.cache/pairwire/costs")


def test_where_costs_are_kept_can_be_set_and_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert EngineConfig(cache_dir="/var/cache/us").cost_directory() == Path("/var/cache/us/costs")
    assert EngineConfig(cache_dir="~/us").cost_directory() == Path("/home/somebody/us/costs")
    assert EngineConfig(cache_dir="none").cost_directory() is None


def test_a_user_without_a_home_keeps_no_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert EngineConfig().cost_directory() is None


@pytest.mark.parametrize("directory", ["", "~nobody-of-that-name/cache"])
def test_a_directory_that_cannot_be_is_refused(directory: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"cache_dir: '{directory}' cannot work; give a directory, auto or none"):
        EngineConfig(cache_dir=directory)


def test_tests_keep_no_costs_at_home(cache_home: Path) -> None:
    assert EngineConfig().cost_directory() == cache_home / "pairwire" / "costs"
