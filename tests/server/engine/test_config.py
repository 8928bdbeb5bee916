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
        ("batch_tokens", 0),
        ("queue_tokens", 0),
        ("text_threads", -1),
        ("warmup_s", 0.0),
        ("warmup_s", float("nan")),
        ("probe_interval_s", -1.0),
    ],
)
def test_what_cannot_work_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigInvalid, match=f"{name}: .* cannot work"):
        EngineConfig(**{name: value})  # type: ignore[arg-type]  # any field
