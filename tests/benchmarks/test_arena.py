"""The comparison of ways to keep memory, on real packages."""

from pathlib import Path

import pytest

from benchmarks.arena import WAYS, Way, measure


@pytest.mark.parametrize("way", [Way(), Way(plans=True, arena=False), Way(shrink=True)], ids=str)
def test_a_way_is_measured_on_every_package(way: Way, cross_encoder_package: Path, bi_encoder_package: Path) -> None:
    row = measure(way, [cross_encoder_package, bi_encoder_package], batches=20, seed=0)
    assert row["loaded_mib"] > 0
    assert 0 <= row["spread_mib"] < row["resident_mib"]
    assert row["cpu_us_per_token"] > 0


def test_what_the_server_does_is_among_the_ways() -> None:
    assert WAYS["no plans, shared arena (ours)"] == Way(shared=True)
    assert len(set(WAYS.values())) == len(WAYS)
