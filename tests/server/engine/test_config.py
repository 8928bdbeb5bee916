import pwd
from pathlib import Path

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


def test_wide_runs_leave_fewer_workers() -> None:
    assert EngineConfig(intra_op_threads=10**6).worker_count() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", -1),
        ("intra_op_threads", 0),
        ("batch_tokens", -1),
        ("queue_tokens", 0),
        ("text_threads", -1),
        ("token_cache_bytes", -1),
        ("score_cache_bytes", -1),
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
