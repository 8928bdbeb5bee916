"""Whether an export fits: by the files of real checkpoints, and by what a made-up system says of its memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pairwire.cli.main import main
from pairwire.export import memory
from pairwire.export.errors import MemoryShort

GB = 10**9


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A machine with 8 GiB available and no limits."""
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:   8388608 kB\n")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "process").write_text("0::/app/job\n")
    return tmp_path


def available(system: Path) -> int | None:
    return memory.available_bytes(system / "meminfo", system / "cgroup", system / "process")


def limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def test_without_a_limit_the_system_says_what_is_available(system: Path) -> None:
    assert available(system) == 8 * 2**30


def test_the_tightest_limit_of_the_groups_above_counts_and_cached_files_give_way(system: Path) -> None:
    limit(system / "cgroup/app", memory__max="max", memory__current="5")
    limit(system / "cgroup/app/job", memory__max=f"{4 * GB}", memory__current=f"{3 * GB}")
    assert available(system) == GB
    limit(system / "cgroup/app/job", memory__stat=f"anon 7\ninactive_file {2 * GB}\nactive_file 9")
    assert available(system) == 3 * GB
    limit(system / "cgroup/app", memory__max=f"{2 * GB}", memory__current=f"{GB}")
    assert available(system) == GB


def test_the_first_version_of_groups_counts_too(system: Path) -> None:
    (system / "process").write_text("5:cpu:/x\n9:memory:/box\n")
    limit(system / "cgroup/memory/box", memory__limit_in_bytes=f"{6 * GB}", memory__usage_in_bytes=f"{2 * GB}")
    limit(system / "cgroup/memory/box", memory__stat=f"cache 1\ntotal_inactive_file {GB}")
    assert available(system) == 5 * GB


def test_more_in_use_than_the_limit_leaves_nothing(system: Path) -> None:
    limit(system / "cgroup/app/job", memory__max="10", memory__current="20")
    assert available(system) == 0


def test_a_system_that_says_nothing_stops_nobody(tmp_path: Path, cross_encoder_checkpoint: Path) -> None:
    assert memory.available_bytes(tmp_path / "no", tmp_path / "none", tmp_path / "nothing") is None
    memory.check_memory(cross_encoder_checkpoint, "tiny")


def test_weights_count_as_float32_wherever_they_lie_and_once(tmp_path: Path) -> None:
    half = {"a": torch.zeros(10, 10, dtype=torch.float16), "b": torch.zeros(4, dtype=torch.bfloat16)}
    save_file(half, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 5000)
    assert memory.weight_bytes(tmp_path) == 4 * 104
    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": torch.zeros(8, 2)}, tmp_path / "2_Dense" / "model.safetensors")
    (tmp_path / "onnx").mkdir()
    save_file(half, tmp_path / "onnx" / "model.safetensors")
    assert memory.weight_bytes(tmp_path) == 4 * (104 + 16)


@pytest.mark.parametrize(("kind", "times"), [("float32", 1), ("float16", 2), ("bfloat16", 2)])
def test_pickles_are_as_large_as_their_numbers(kind: str, times: int, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"x" * 5000)
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": kind}))
    assert memory.weight_bytes(tmp_path) == 5000 * times


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, (20).to_bytes(8, "little") + b'{"a": {"shape": 3}} '])
def test_a_damaged_file_counts_by_its_size(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert memory.weight_bytes(tmp_path) == len(content)


def test_a_checkpoint_that_will_not_fit_is_refused_before_it_is_loaded(
    cross_encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: GB // 2)
    with pytest.raises(MemoryShort, match=r"about 1\.0 GB of memory \(0 M weights\) and 0\.5 GB are available"):
        memory.check_memory(cross_encoder_checkpoint, "tiny")
    target = tmp_path / "package"
    assert main(["export", str(cross_encoder_checkpoint), "-o", str(target)]) == 2
    said = capsys.readouterr().err
    assert "--no-memory-check" in said
    assert "load it with" not in said
    assert not target.exists()


def test_a_person_may_go_ahead(cross_encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    options = ["--no-memory-check", "--no-tune", "--no-parity", "--precision", "fp32"]
    assert main(["export", str(cross_encoder_checkpoint), "-o", str(tmp_path / "package"), *options]) == 0
