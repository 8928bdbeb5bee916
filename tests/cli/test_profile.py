"""`pairwire profile` on real packages; no figure is compared with a clock."""

import json
import sys
from pathlib import Path

import pytest

from pairwire.cli.exits import BadInput
from pairwire.cli.profile import default_shapes, parse_shapes
from tests.checkpoints import PAIRS, TEXTS
from tests.cli.conftest import Run
from tests.server import toy_packages

HIDDEN = 32
"""Of the tiny checkpoints."""


def test_shapes_are_rows_and_tokens() -> None:
    assert parse_shapes("4x128, 1x384", 512) == [(4, 128), (1, 384)]
    assert default_shapes(512) == [(18, 28), (4, 128), (1, 384)]
    assert default_shapes(128) == [(18, 28), (4, 128)]
    assert default_shapes(16) == [(1, 16)]


@pytest.mark.parametrize("text", ["", "4", "4x", "x4", "0x4", "4x0", "4x-1", "4x8x2", "4x128,", "four x one"])
def test_what_is_no_shape_is_named(text: str) -> None:
    with pytest.raises(BadInput, match=r"--shapes: '.*' is no shape; expected rows x tokens, as in 4x128,1x384"):
        parse_shapes(text, 512)


def test_longer_rows_than_the_model_reads_are_refused() -> None:
    with pytest.raises(BadInput, match="'1x513' has rows of 513 tokens; the model reads at most 512"):
        parse_shapes("1x512,1x513", 512)


@pytest.mark.slow
def test_a_cross_encoder_is_profiled_from_text_to_score(run: Run, cross_encoder_package: Path) -> None:
    done = run("profile", str(cross_encoder_package), "--repeats", "2", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["variant"] == "cpu-fp32"
    assert min(found["peaks"][precision]["one_thread"] for precision in ("int8", "fp32")) > 0
    layers = found["work"]["layers"]
    assert found["work"]["width"] == HIDDEN
    assert found["work"]["weights"] % layers == 0
    for shape in found["shapes"]:
        rows, length = shape["bucket"]["rows"], shape["bucket"]["length"]
        attention = 4 * length * HIDDEN * layers
        assert shape["useful"] == rows * length * (2 * found["work"]["weights"] + attention)
        assert 0 < shape["executed"] < shape["useful"]  # the last layer is pruned, the head is small
        assert not shape["int8"]
        assert sum(operator["seconds"] for operator in shape["operators"]) == pytest.approx(shape["kernels_s"])
        calls = {operator["operator"]: operator["calls"] for operator in shape["operators"]}
        assert calls["LayerNormalization"] >= 2 * layers
    texts = found["texts"]
    assert texts["useful_tokens"] <= texts["computed_tokens"]
    assert texts["batches"] > 1
    assert all(texts[stage] >= 0 for stage in texts if stage.endswith("_s"))
    assert texts["useful_kernels_s"] > 0


@pytest.mark.slow
def test_a_report_is_for_people(run: Run, cross_encoder_package: Path) -> None:
    done = run("profile", str(cross_encoder_package), "--shapes", "2x16,1x64", "--repeats", "2", "--workers", "1")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith("tiny-cross-encoder, cpu-fp32: 2 layers")
    for words in ("1 at once", "of fp32", "2 x 16 by operator", "1 x 64 by operator", "MatMul"):
        assert words in done.out
    assert "text in" not in done.out


@pytest.mark.slow
def test_a_file_of_texts_is_run_alone(run: Run, bi_encoder_package: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    done = run("profile", str(bi_encoder_package), "--data", str(path), "--repeats", "1")
    assert (done.code, done.err) == (0, "")
    assert f"text in, results out: {len(TEXTS)} inputs" in done.out
    assert "by operator" not in done.out


@pytest.mark.slow
def test_bad_input_is_told(run: Run, cross_encoder_package: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIRS[0]) + "\n[1, 2]\n", encoding="utf-8")
    done = run("profile", str(cross_encoder_package), "--data", str(path))
    assert (done.code, done.err) == (2, "pairwire: line 2: first text: expected text, got int\n")
    path.write_text("", encoding="utf-8")
    assert run("profile", str(cross_encoder_package), "--data", str(path)).code == 2
    assert "is no shape" in run("profile", str(cross_encoder_package), "--shapes", "1").err
    assert "no variant 'gpu'" in run("profile", str(cross_encoder_package), "--variant", "gpu").err


@pytest.mark.slow
def test_the_extra_that_is_missing_is_named(
    run: Run, cross_encoder_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = run("profile", str(cross_encoder_package), "--shapes", "1x16")
    assert done.code == 1
    assert done.err == "pairwire: onnx is not installed; install it with: pip install 'pairwire[export]'\n"


def test_a_table_without_layers_is_told_what_measures_it(run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_bi_encoder(tmp_path / "table")
    toy_packages.edit_manifest(package, empty_token_id=2000)
    done = run("profile", str(package))
    assert done.code == 2
    assert "a table of vectors has no layers whose work could be counted; `pairwire tune`" in done.err
