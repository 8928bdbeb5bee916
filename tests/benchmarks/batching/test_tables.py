"""Recorded costs: what is shipped, what is read and written, what is measured of a real package."""

from pathlib import Path

import pytest

from benchmarks.batching.tables import measure_package, modelled_gpu, read, shipped, write
from pairwire.server.engine.batching.buckets import Bucket


@pytest.mark.parametrize("name", list(shipped()))
def test_what_is_shipped_was_measured_and_says_where(name: str) -> None:
    recording = read(shipped()[name])
    assert recording.name == name
    assert recording.measured
    assert "one thread a run" in recording.about
    assert max(bucket.tokens for bucket in recording.shapes) > recording.batch_tokens


def test_what_was_measured_comes_back_exactly_and_the_engine_knows_less() -> None:
    recording = read(shipped()["minilm-l6-cpu-int8"])
    truth, known = recording.truth(), recording.engine_costs()
    assert truth(1, 64) == pytest.approx(recording.shapes[Bucket(1, 64)])
    assert truth(32, 128) == pytest.approx(recording.shapes[Bucket(32, 128)])
    assert known.seconds(8, 64) == pytest.approx(recording.shapes[Bucket(8, 64)])
    assert truth(1, 3) == truth(1, 8)
    assert truth(64, 512) == pytest.approx(8 * truth(8, 512))  # beyond what was measured: in proportion


def test_a_model_of_a_device_says_that_it_is_none() -> None:
    recording = modelled_gpu()
    assert not recording.measured
    assert "not a measurement" in recording.about
    truth = recording.truth()
    assert truth(64, 32) < 3 * truth(1, 32)  # a batch is what such a device is there for
    assert recording.engine_costs().seconds(64, 32) == pytest.approx(truth(64, 32))


def test_a_recording_is_written_as_it_is_read(tmp_path: Path) -> None:
    recording = modelled_gpu()
    write(recording, tmp_path / "gpu.json")
    again = read(tmp_path / "gpu.json")
    assert again.shapes == pytest.approx(recording.shapes, rel=1e-5)
    assert (again.name, again.about, again.workers) == (recording.name, recording.about, recording.workers)


def test_what_is_not_a_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"shapes": []}', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"x\.json: not a recorded cost table"):
        read(path)
    with pytest.raises(SystemExit, match="not a recorded cost table"):
        read(tmp_path / "missing.json")


def test_a_real_package_is_measured(cross_encoder_package: Path) -> None:
    recording = measure_package(cross_encoder_package, "", passes=1, budget_s=0.05)
    assert recording.measured
    assert recording.shapes
    assert all(seconds > 0 for seconds in recording.shapes.values())
    assert recording.truth()(2, 16) > 0
