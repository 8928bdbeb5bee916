"""Damaged checkpoints, and places that cannot be written: a sentence with the file, exit code 2, nothing left."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pairwire.cli.main import main
from tests import checkpoints
from tests.checkpoints import edit_json

LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 90868376\n"
)
DEEP = "[" * 100_000
_SPM = "sentencepiece.bpe.model"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def dense_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder with a Dense module."""
    return checkpoints.save_bi_encoder(tmp_path_factory.mktemp("checkpoint") / "dense", dense=16, layers=1)


@pytest.fixture(scope="module")
def adapter_checkpoint(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an adapter and, beside it, its base."""
    directory = tmp_path_factory.mktemp("checkpoint") / "adapted"
    shutil.copytree(cross_encoder_checkpoint, directory / "base")
    checkpoints.save_adapter(directory / "adapter", directory / "base")
    edit_json(directory / "adapter" / "adapter_config.json", base_model_name_or_path="../base")
    return directory


def pointer(name: str) -> Damage:
    return lambda directory: (directory / name).write_text(LFS)


def cut(name: str) -> Damage:
    return lambda directory: os.truncate(directory / name, (directory / name).stat().st_size // 2)


def written(name: str, text: str) -> Damage:
    return lambda directory: (directory / name).write_text(text, encoding="utf-8")


def edited(name: str, **changes: object) -> Damage:
    return lambda directory: edit_json(directory / name, **changes)


def gone(name: str) -> Damage:
    return lambda directory: (directory / name).unlink()


def a_directory(name: str) -> Damage:
    def replace(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).mkdir()

    return replace


def a_loop(name: str) -> Damage:
    def replace(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(name)

    return replace


CROSS_ENCODERS: list[tuple[Damage, str]] = [
    (pointer("model.safetensors"), "model.safetensors is a git-lfs pointer in place of the file; run `git lfs pull`"),
    (pointer("tokenizer.json"), "tokenizer.json is a git-lfs pointer"),
    (pointer("config.json"), "config.json is a git-lfs pointer"),
    (cut("model.safetensors"), "model.safetensors: ends after"),
    (cut("tokenizer.json"), "tokenizer.json: not a tokenizer that this version of tokenizers reads"),
    (cut("config.json"), "config.json: not JSON"),
    (cut("tokenizer_config.json"), "tokenizer_config.json: not JSON"),
    (written("model.safetensors", ""), "model.safetensors: not a whole safetensors file (0 bytes)"),
    (written("model.safetensors", "PK\x03\x04 no header at all"), "model.safetensors: not a whole safetensors file"),
    (written("tokenizer.json", ""), "tokenizer.json: not a tokenizer"),
    (written("tokenizer.json", DEEP), "tokenizer.json: not a tokenizer"),
    (written("config.json", DEEP), "config.json: not JSON (nested too deeply)"),
    (written("config.json", "\ufeff{}"), "config.json: not JSON (Unexpected UTF-8 BOM"),
    (written("config.json", "[]"), "config.json: expected a JSON object, got list"),
    (written("modules.json", "{}"), "modules.json: expected a JSON list, got dict"),
    (written("modules.json", DEEP), "modules.json: not JSON (nested too deeply)"),
    (written("config_sentence_transformers.json", "3"), "config_sentence_transformers.json: expected a JSON object"),
    (gone("model.safetensors"), "no file named"),
    (gone("config.json"), "neither config.json nor modules.json"),
    (a_directory("model.safetensors"), "no file named"),
    (a_loop("model.safetensors"), "no file named"),
    (a_directory("config.json"), "neither config.json nor modules.json"),
    (edited("config.json", architectures="Bert"), "architectures 'Bert'; expected a list of names"),
    (edited("config.json", architectures=[3]), "architectures [3]; expected a list of names"),
    (edited("config.json", model_type=7), "sentence-transformers"),
    (edited("config.json", model_type="no such type"), "sentence-transformers"),
    (edited("config.json", hidden_size="32"), "sentence-transformers"),
    (edited("config.json", num_hidden_layers=[2]), "sentence-transformers"),
    (edited("config.json", id2label=[["a"]]), "sentence-transformers"),
    (edited("config.json", vocab_size={"a": 1}), "sentence-transformers"),
    (edited("config.json", max_position_embeddings="many"), "sentence-transformers"),
    (edited("config.json", hidden_act=3.5), "'float' object is not callable"),
    (edited("tokenizer_config.json", tokenizer_class=["x"]), "sentence-transformers"),
    (edited("tokenizer_config.json", model_max_length="long"), "sentence-transformers"),
]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an export keeps what it needs only while it runs."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, *options: str) -> str:
    """The last line of an export that makes no package."""
    output = checkpoint.parent / "new" / "model"
    assert main(["export", str(checkpoint), "-o", str(output), "--no-tune", "--no-parity", *options]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert not output.parent.exists()
    return printed.splitlines()[-1]


@pytest.mark.parametrize(("damage", "sentence"), CROSS_ENCODERS, ids=[str(at) for at in range(len(CROSS_ENCODERS))])
def test_a_damaged_cross_encoder_is_named(
    damage: Damage,
    sentence: str,
    cross_encoder_checkpoint: Path,
    tmp_path: Path,
    temporary: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    damage(checkpoint)
    assert sentence.replace("sentence-transformers", "load it") in refused(capsys, checkpoint)
    assert list(temporary.iterdir()) == []


DENSE: list[tuple[Damage, str]] = [
    (pointer("2_Dense/model.safetensors"), "2_Dense/model.safetensors is a git-lfs pointer"),
    (cut("2_Dense/model.safetensors"), "2_Dense/model.safetensors: ends after"),
    (gone("2_Dense/model.safetensors"), "Could not find 'model.safetensors'"),
    (written("2_Dense/config.json", DEEP), "2_Dense/config.json: not JSON (nested too deeply)"),
    (edited("2_Dense/config.json", out_features="many"), "sentence-transformers"),
    (edited("2_Dense/config.json", in_features=31), "sentence-transformers"),
    (edited("1_Pooling/config.json", pooling_mode=7), "sentence-transformers"),
    (written("modules.json", "[3]"), "sentence-transformers"),
    (written("modules.json", '[{"idx": 0}]'), "sentence-transformers"),
    (edited("sentence_bert_config.json", max_seq_length=[1]), "sentence-transformers"),
]


@pytest.mark.parametrize(("damage", "sentence"), DENSE, ids=[str(at) for at in range(len(DENSE))])
def test_a_damaged_module_is_named(
    damage: Damage,
    sentence: str,
    dense_checkpoint: Path,
    tmp_path: Path,
    temporary: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = Path(shutil.copytree(dense_checkpoint, tmp_path / "checkpoint"))
    damage(checkpoint)
    assert sentence in refused(capsys, checkpoint)
    assert list(temporary.iterdir()) == []


ADAPTERS: list[tuple[Damage, str]] = [
    (pointer("adapter/adapter_model.safetensors"), "adapter/adapter_model.safetensors is a git-lfs pointer"),
    (cut("adapter/adapter_model.safetensors"), "adapter/adapter_model.safetensors: ends after"),
    (written("adapter/adapter_config.json", DEEP), "adapter_config.json: not JSON (nested too deeply)"),
    (pointer("base/model.safetensors"), "base/model.safetensors is a git-lfs pointer"),
    (cut("base/model.safetensors"), "base/model.safetensors: ends after"),
    (cut("base/tokenizer.json"), "base/tokenizer.json: not a tokenizer"),
    (written("base/config.json", DEEP), "base/config.json: not JSON (nested too deeply)"),
    (edited("adapter/adapter_config.json", base_model_name_or_path=7), "adapter"),
    (edited("adapter/adapter_config.json", r="four"), "adapter"),
    (edited("adapter/adapter_config.json", r=9), "adapter"),
    (edited("adapter/adapter_config.json", peft_type="NONE"), "adapter"),
    (edited("base/config.json", hidden_size=64, intermediate_size=8), "adapter"),
]


@pytest.mark.parametrize(("damage", "sentence"), ADAPTERS, ids=[str(at) for at in range(len(ADAPTERS))])
def test_a_damaged_adapter_or_base_is_named(
    damage: Damage,
    sentence: str,
    adapter_checkpoint: Path,
    tmp_path: Path,
    temporary: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = Path(shutil.copytree(adapter_checkpoint, tmp_path / "adapted"))
    damage(directory)
    assert sentence in refused(capsys, directory / "adapter")
    assert list(temporary.iterdir()) == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Until the block ends no file can grow beyond ``size`` bytes: as on a full disk, but for this process alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1_000, 100_000])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    size: int, cross_encoder_checkpoint: Path, tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    with largest_file(size):
        line = refused(capsys, checkpoint, "--precision", "fp32")
    assert "File too large" in line
    assert list(temporary.iterdir()) == []


def test_a_full_disk_keeps_the_package_that_would_be_replaced(
    cross_encoder_checkpoint: Path, cross_encoder_package: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(cross_encoder_package, tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with largest_file(100_000):
        code = main(["export", str(cross_encoder_checkpoint), "-o", str(output), "--force", "--no-tune", "--no-parity"])
    assert code == 2
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert list(tmp_path.iterdir()) == [output]


def test_an_adapter_does_not_fit_on_the_disk(
    adapter_checkpoint: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with largest_file(20_000):
        line = refused(capsys, adapter_checkpoint / "adapter")
    assert "File too large" in line
    assert list(temporary.iterdir()) == []


def test_no_place_for_temporary_files(
    cross_encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    line = refused(capsys, checkpoint)
    assert "could not make the package" in line
    assert "missing" in line


@pytest.mark.parametrize("place", ["\udcff", "x" * 300, "loop/model", "file/model"])
def test_an_output_that_cannot_be_is_a_sentence(
    place: str, cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert main(["export", str(cross_encoder_checkpoint), "-o", str(tmp_path / place)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pairwire export: {tmp_path}/")


def test_a_checkpoint_whose_path_is_not_utf8_is_a_sentence(
    cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copytree(cross_encoder_checkpoint, tmp_path / "caf\udce9")
    assert "not UTF-8" in refused(capsys, Path(checkpoint))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (DEEP.encode(), ":1: not JSON (nested too deeply)"),
        (b"\xff\xfe", "cannot be read as UTF-8 text"),
        (b"", "0 lines; at least 2 are needed"),
        (b'["a", "b"]\n{"first": 1, "second": "b"}', ":2: expected"),
        (LFS.encode(), ":1: not JSON"),
    ],
)
def test_texts_that_cannot_be_read_are_a_sentence(
    content: bytes, sentence: str, cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    checkpoint = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    assert sentence in refused(capsys, checkpoint, "--calibration-data", str(data))


def test_texts_of_a_pipe_are_read_once(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    """A bi-encoder takes its calibration and the ranges of its vectors from them."""
    lines = b'\xef\xbb\xbf"a cat sleeps"\n"a dog runs"\n'
    reading, writing = os.pipe()
    os.write(writing, lines)
    os.close(writing)
    try:
        data = ["--calibration-data", f"/dev/fd/{reading}", "--no-tune", "--no-parity"]
        assert main(["export", str(bi_encoder_checkpoint), "-o", str(tmp_path / "model"), *data]) == 0
    finally:
        os.close(reading)


@pytest.fixture(scope="module")
def sentencepiece_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder whose tokenizer is a sentencepiece model and nothing else."""
    return checkpoints.save_sentencepiece_cross_encoder(tmp_path_factory.mktemp("checkpoint") / "sentencepiece")


def test_a_sentencepiece_model_is_enough(sentencepiece_checkpoint: Path, tmp_path: Path) -> None:
    assert not (sentencepiece_checkpoint / "tokenizer.json").exists()
    output = tmp_path / "model"
    assert main(["export", str(sentencepiece_checkpoint), "-o", str(output), "--no-tune", "--precision", "fp32"]) == 0


def test_without_the_package_sentencepiece_the_sentence_says_what_to_install(
    sentencepiece_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find_spec(name))
    checkpoint = Path(shutil.copytree(sentencepiece_checkpoint, tmp_path / "checkpoint"))
    assert "the package sentencepiece converts it, install it with: pip" in refused(capsys, checkpoint)


@pytest.mark.parametrize("damage", [cut(_SPM), written(_SPM, ""), written(_SPM, "junk"), gone(_SPM)])
def test_a_tokenizer_that_fails_is_named_as_the_culprit(
    damage: Damage, sentencepiece_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(sentencepiece_checkpoint, tmp_path / "checkpoint"))
    damage(checkpoint)
    assert "its tokenizer cannot be loaded: " in refused(capsys, checkpoint)
