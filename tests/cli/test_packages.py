"""Commands on real model packages, without a server: `--local` and `inspect`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import PAIRS, TEXTS
from tests.cli.conftest import Run
from tests.server import toy_packages

pytestmark = pytest.mark.slow


def test_scoring_here_equals_the_checkpoint(
    run: Run, cross_encoder_package: Path, cross_encoder_checkpoint: Path
) -> None:
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(str(cross_encoder_checkpoint), device="cpu").predict([list(pair) for pair in PAIRS])
    done = run("score", "--local", str(cross_encoder_package), stdin="\n".join(map(json.dumps, PAIRS)))
    assert (done.code, done.err) == (0, "")
    assert np.array(done.lines, dtype=float) == pytest.approx(expected, abs=1e-4)


def test_ranking_here_puts_the_best_first(run: Run, cross_encoder_package: Path) -> None:
    done = run("rerank", "--local", str(cross_encoder_package), TEXTS[2], *TEXTS, "--json", "-k", "4")
    found = json.loads(done.out)["results"]
    assert len(found) == 4
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)
    assert all(entry["document"] == TEXTS[entry["index"]] for entry in found)


def test_embedding_here_streams_into_a_file(run: Run, bi_encoder_package: Path, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    texts = [f"{TEXTS[index % len(TEXTS)]} {index}" for index in range(600)]
    done = run("embed", "--local", str(bi_encoder_package), "-o", str(path), stdin="\n".join(texts))
    assert (done.code, done.out) == (0, "")
    vectors = np.load(path)
    assert len(vectors) == 600
    some = run("embed", "--local", str(bi_encoder_package), texts[0], texts[599])
    assert np.loadtxt(some.lines) == pytest.approx(vectors[[0, 599]], abs=1e-5)


def test_what_the_engine_refuses_is_named_by_its_line(run: Run, cross_encoder_package: Path) -> None:
    stdin = "a\tb\n\nc\t" + "long " * 2000 + "\n"
    done = run("score", "--local", str(cross_encoder_package), "--truncation", "error", stdin=stdin)
    assert done.code == 2
    assert done.err.startswith("pairwire: line 3: pairs[1].second: ")


def test_lines_are_counted_over_all_that_is_given_to_the_engine_at_once(run: Run, tmp_path: Path) -> None:
    scorer = toy_packages.write_cross_encoder(tmp_path / "scorer")
    lines = ["a\tb"] * 299 + ["c\t" + "long " * 200]
    done = run("score", "--local", str(scorer), "--truncation", "error", stdin="\n".join(lines))
    assert done.err.startswith("pairwire: line 300: pairs[299].second: ")
    embedder = toy_packages.write_bi_encoder(tmp_path / "embedder", scale=1e3)
    words = ["a"] * 299 + ["long " * 60]
    done = run("embed", "--local", str(embedder), "--encoding", "float16", "--max-length", "64", stdin="\n".join(words))
    assert done.err.startswith("pairwire: line 300: texts[299]: its vector has the number")


def test_the_wrong_kind_of_model_is_refused(run: Run, cross_encoder_package: Path, tmp_path: Path) -> None:
    done = run("embed", "--local", str(cross_encoder_package), "a")
    assert done.code == 2
    assert "no model of kind bi-encoder is loaded" in done.err
    missing = run("score", "--local", str(tmp_path), "a", "b")
    assert missing.code == 1
    assert "make a package with `pairwire export" in missing.err


def test_a_cross_encoder_package_is_shown(run: Run, cross_encoder_package: Path) -> None:
    done = run("inspect", str(cross_encoder_package))
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith("tiny-cross-encoder: cross-encoder, bert")
    for word in ("labels", "activation", "cpu-fp32", "passed on", "prune_last_layer", "sha256"):
        assert (word in done.out) == (word != "sha256")


def test_a_bi_encoder_package_is_shown(run: Run, bi_encoder_package: Path) -> None:
    done = run("inspect", str(bi_encoder_package))
    assert done.code == 0
    assert "32 dimensions, mean pooling, unit length" in done.out


def test_a_package_in_json_is_its_manifest(run: Run, cross_encoder_package: Path) -> None:
    found = json.loads(run("inspect", str(cross_encoder_package), "--json").out)
    assert found["problems"] == []
    assert found["manifest"] == json.loads((cross_encoder_package / "manifest.json").read_text())


def test_a_damaged_package_is_told(run: Run, cross_encoder_package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "package"
    shutil.copytree(cross_encoder_package, copy)
    graph = copy / "cpu-fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    done = run("inspect", str(copy))
    assert done.code == 1
    assert "problem: " in done.out
    assert "cpu-fp32.onnx: sha256 is" in done.out
    assert json.loads(run("inspect", str(copy), "--json").out)["problems"]
    assert run("inspect", str(tmp_path)).code == 1
