"""`pairwire inspect`: every fact of a manifest that changes what comes out is shown."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format

from pairwire.server.package import MANIFEST_FILE, read_package
from pairwire.v1.manifest_pb2 import (
    TEMPLATE_SLOT_FIRST,
    TEMPLATE_SLOT_PROMPT,
    TEMPLATE_SLOT_SECOND,
    ModelManifest,
)
from tests.cli.conftest import Run
from tests.server import toy_packages

PROMPTS = {"query": "query: "}


def shown(run: Run, package: Path, change: Callable[[ModelManifest], None] = lambda manifest: None) -> str:
    """What is printed of a package whose manifest has been changed, with single spaces."""
    manifest = read_package(package).manifest
    change(manifest)
    (package / MANIFEST_FILE).write_text(json_format.MessageToJson(manifest))
    done = run("inspect", str(package))
    assert (done.code, done.err) == (0, "")
    return " ".join(done.out.split())


def has(words: str, text: str) -> bool:
    return f" {words} " in f" {text} "


def test_dense_vectors(run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_bi_encoder(tmp_path / "dense", prompts=PROMPTS, int8_range=20)
    plain = shown(run, package)
    assert has("int8 ranges of each dimension", plain)
    assert has("prompt query 'query: '", plain)
    for words in ("vocabulary", "by default", "left out of pooling"):
        assert words not in plain

    def change(manifest: ModelManifest) -> None:
        manifest.vocab_size, manifest.default_dimensions, manifest.prompt_excluded = 300, 4, True
        del manifest.int8_low[:], manifest.int8_high[:]

    changed = shown(run, package, change)
    assert has("vocabulary 300 tokens", changed)
    assert has("by default the first 4 dimensions", changed)
    assert has("int8 no ranges: not to be had as int8", changed)
    assert has("prompts are read, but left out of pooling", changed)


@pytest.mark.parametrize(("most", "words"), [(0, "all weights above 0 kept"), (64, "at most 64 weights above 0 kept")])
def test_sparse_vectors(most: int, words: str, run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_sparse_encoder(tmp_path / "sparse", prompts=PROMPTS)

    def change(manifest: ModelManifest) -> None:
        manifest.max_active_dims = most

    text = shown(run, package, change)
    assert text.startswith("splade: sparse-encoder, ")
    assert has(f"vectors 300 dimensions, sparse, {words}", text)
    assert has("prompt query 'query: '", text)
    assert "int8" not in text


def test_the_template_of_pairs_is_one_line(run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "scorer")
    assert "template" not in shown(run, package)

    def change(manifest: ModelManifest) -> None:
        for literal, slot in (
            ("<I>", TEMPLATE_SLOT_PROMPT),
            ("\n<Q>", TEMPLATE_SLOT_FIRST),
            ("\n<D>", TEMPLATE_SLOT_SECOND),
        ):
            manifest.template.parts.add(literal=literal)
            manifest.template.parts.add(slot=slot)
        manifest.template.default_prompt = "Judge."
        manifest.prompts["web"] = "Find."

    text = shown(run, package, change)
    assert has(r"template '<I>{prompt}\n<Q>{first}\n<D>{second}', prompt 'Judge.' by default", text)
    assert has("prompt web 'Find.'", text)


def test_code_that_ran_is_named(run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_bi_encoder(tmp_path / "dense")
    assert "ran its code" not in shown(run, package)

    def change(manifest: ModelManifest) -> None:
        manifest.remote_code.sha256 = "ab" * 32
        manifest.remote_code.files.extend(["configuration.py", "modeling.py"])

    assert has(f"ran its code configuration.py, modeling.py, sha256 {'ab' * 32}", shown(run, package, change))


def test_scale_and_bias_of_a_score(run: Run, tmp_path: Path) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "scaled")
    assert "logit" not in shown(run, package)

    def change(manifest: ModelManifest) -> None:
        manifest.score_scale, manifest.score_bias = 0.2, -1.5

    assert has("score 0.2 x logit - 1.5, before the activation", shown(run, package, change))
