"""Graphs whose weights a protobuf message cannot hold: small ones, with the limit lowered to some kilobytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from pairwire.cli.main import main
from pairwire.export import ExportConfig, export_checkpoint, storage
from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.errors import PackageInvalid
from pairwire.server.package import Package, read_package, sha256_of
from pairwire.server.runtime.ort import ort
from tests import checkpoints, graphs
from tests.export.test_recipes import table
from tests.server.tuning.timings import by_name

LIMIT = 20_000
"""Bytes; the weights of a small checkpoint are 130 kB."""
SETTINGS = EngineConfig(warmup_s=0.01, cache_dir="none")


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LARGEST_BYTES", LIMIT)


@pytest.fixture(scope="module")
def large(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package of the cross-encoder in float32 and int8, each with a file of weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "LARGEST_BYTES", LIMIT)
        return exported(cross_encoder_checkpoint, tmp_path_factory.mktemp("package") / "large", "fp32", "int8")


def exported(checkpoint: Path, directory: Path, *precisions: str) -> Package:
    config = ExportConfig(tune=False, checkpoint=str(checkpoint), output=directory, precisions=precisions)
    return export_checkpoint(config).package


def options() -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.log_severity_level = 3
    return made


def test_the_limit_is_that_of_protobuf() -> None:
    assert 2**31 - 2**24 < storage.LARGEST_BYTES < 2**31


def test_a_graph_that_fits_is_one_file(plain_graph: Callable[[str], ModelProto], tmp_path: Path) -> None:
    model = plain_graph("bert")
    assert not storage.is_large(model)
    assert storage.save(model, tmp_path / "graph.onnx") is None
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
    assert onnx.load(tmp_path / "graph.onnx") == model


@pytest.mark.usefixtures("lowered")
def test_a_large_graph_is_two_files_that_read_back_as_it_was(
    plain_graph: Callable[[str], ModelProto], tmp_path: Path
) -> None:
    model = plain_graph("bert")
    before = model.SerializeToString()
    assert storage.is_large(model)
    assert storage.save(model, tmp_path / "graph.onnx") == tmp_path / "graph.onnx.data"
    assert model.SerializeToString() == before
    read = onnx.load(tmp_path / "graph.onnx")
    for tensor in read.graph.initializer:
        tensor.ClearField("data_location")
    assert read.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert (tmp_path / "graph.onnx").stat().st_size < 0.3 * len(before)


@pytest.mark.usefixtures("lowered")
def test_only_what_is_large_leaves_the_graph_and_begins_a_page(
    plain_graph: Callable[[str], ModelProto], tmp_path: Path
) -> None:
    model = plain_graph("bert")
    storage.save(model, tmp_path / "graph.onnx")
    skeleton = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in skeleton.graph.initializer
        if tensor.external_data
    }
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    assert set(places) == {name for name, size in sizes.items() if size >= storage.EXTERNAL_FROM}
    assert 0 < len(places) < len(sizes)
    assert {place["location"] for place in places.values()} == {"graph.onnx.data"}
    assert all(int(place["offset"]) % 4096 == 0 for place in places.values())


def test_a_session_gives_the_same_of_a_large_graph_and_leaves_no_file(
    plain_graph: Callable[[str], ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = plain_graph("bert")
    before = model.SerializeToString()
    feeds = graphs.padded_batch()
    feeds = {value.name: feeds[value.name] for value in model.graph.input}
    small = storage.open_session(model, options()).run(None, feeds)
    monkeypatch.setattr(storage, "LARGEST_BYTES", LIMIT)
    result = storage.open_session(model, options()).run(None, feeds)
    np.testing.assert_array_equal(result[0], small[0])
    assert model.SerializeToString() == before
    assert list(tmp_path.iterdir()) == []


def test_package_of_a_large_graph_names_and_measures_both_files(large: Package) -> None:
    for variant in large.manifest.variants:
        assert variant.data_file == f"{variant.file}.data"
        assert variant.data_sha256 == sha256_of(large.directory / variant.data_file)
        assert variant.data_size_bytes == (large.directory / variant.data_file).stat().st_size
        assert variant.size_bytes + variant.data_size_bytes > LIMIT
        assert variant.parity.passed
    names = {path.name for path in large.directory.iterdir()}
    assert {"cpu-fp32.onnx", "cpu-fp32.onnx.data", "cpu-int8.onnx", "cpu-int8.onnx.data"} < names


@pytest.mark.parametrize("variant", ["cpu-fp32", "cpu-int8"])
async def test_engine_scores_a_large_graph_like_the_same_in_one_file(
    variant: str, large: Package, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "LARGEST_BYTES", 2**31)
        whole = exported(cross_encoder_checkpoint, tmp_path / "whole", variant.removeprefix("cpu-"))
    assert not whole.manifest.variants[0].data_file
    results = []
    for package in (large, whole):
        config = EngineConfig(warmup_s=0.01, cache_dir="none", variant=variant)
        async with await Engine.open(package.directory, config=config) as engine:
            results.append((await engine.score(checkpoints.PAIRS)).scores)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), r"cpu-fp32\.onnx\.data: missing, but the manifest lists it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), r"cpu-fp32\.onnx\.data: sha256 is"),
    ],
)
async def test_weights_that_are_missing_or_changed_are_refused(
    damage: Callable[[Path], object], reason: str, large: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(large.directory, tmp_path / "copy"))
    damage(copy / "cpu-fp32.onnx.data")
    package = read_package(copy)
    with pytest.raises(PackageInvalid, match=reason):
        package.graph_file(package.variant("cpu-fp32"))
    with pytest.raises(PackageInvalid, match=reason):
        await Engine.open(copy, config=SETTINGS)
    assert main(["inspect", str(copy)]) == 1
    assert "cpu-fp32.onnx.data" in capsys.readouterr().out.partition("problem: ")[2]


@pytest.mark.usefixtures("lowered")
def test_recipes_of_a_large_graph_are_tried_and_the_chosen_one_brings_its_weights(
    cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    config = ExportConfig(checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", precisions=("fp32",))
    package = export_checkpoint(config, measure=by_name({"fold_bias on": 0.5})).package
    (variant,) = package.manifest.variants
    assert [name for name, row in table(variant).items() if row.chosen] == ["fold_bias on"]
    assert variant.data_sha256 == sha256_of(tmp_path / "model" / "cpu-fp32.onnx.data")
    assert variant.parity.passed
    assert {path.name for path in (tmp_path / "model").iterdir() if "onnx" in path.name} == {
        "cpu-fp32.onnx",
        "cpu-fp32.onnx.data",
    }


@pytest.mark.usefixtures("lowered")
def test_float16_graph_may_be_large_too(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    (variant,) = exported(cross_encoder_checkpoint, tmp_path / "model", "fp16").manifest.variants
    assert variant.data_file == "cuda-fp16.onnx.data"
    assert variant.parity.passed


@pytest.mark.usefixtures("lowered")
def test_bi_encoder_may_be_large_too(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    package = exported(bi_encoder_checkpoint, tmp_path / "model", "int8")
    (variant,) = package.manifest.variants
    assert variant.data_file
    assert variant.parity.passed


async def test_weights_that_stay_in_a_file_while_a_graph_is_made_change_nothing_of_it(
    cross_encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = exported(cross_encoder_checkpoint, tmp_path / "held", "int8", "fp32", "fp16")
    monkeypatch.setattr(storage, "HELD_BYTES", LIMIT)
    light = exported(cross_encoder_checkpoint, tmp_path / "light", "int8", "fp32", "fp16")
    for variant in ("cpu-int8", "cpu-fp32", "cuda-fp16"):
        one, other = (onnx.load(package.directory / f"{variant}.onnx") for package in (held, light))
        assert [node.op_type for node in one.graph.node] == [node.op_type for node in other.graph.node]
        weights = [
            {each.name: storage.array_of(each).tobytes() for each in model.graph.initializer} for model in (one, other)
        ]
        assert weights[0] == weights[1]
    assert {path.name for path in light.directory.iterdir()} == {path.name for path in held.directory.iterdir()}


def test_a_light_graph_has_its_weights_in_one_file_that_sessions_and_copies_share(
    plain_graph: Callable[[str], ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plain_graph("bert")
    with monkeypatch.context() as lowered:
        lowered.setattr(storage, "LARGEST_BYTES", LIMIT)
        storage.save(model, tmp_path / "graph.onnx")
    light = storage.load_light(tmp_path / "graph.onnx")
    assert light.ByteSize() < 0.3 * model.ByteSize()
    values = {tensor.name: storage.array_of(tensor) for tensor in light.graph.initializer}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(values[tensor.name], storage.array_of(tensor))
    copy = ModelProto()
    copy.CopyFrom(light)
    feeds = graphs.padded_batch()
    feeds = {value.name: feeds[value.name] for value in model.graph.input}
    expected = storage.open_session(model, options()).run(None, feeds)
    np.testing.assert_array_equal(storage.open_session(copy, options()).run(None, feeds)[0], expected[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.onnx", "graph.onnx.data"]
    whole = tmp_path / "whole" / "graph.onnx"
    whole.parent.mkdir()
    assert storage.save(copy, whole) is None
    read = ort.InferenceSession(str(whole), options(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(read.run(None, feeds)[0], expected[0])
