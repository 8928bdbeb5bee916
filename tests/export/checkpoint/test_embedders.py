"""Bi-encoders of every form, from the checkpoint to vectors of the engine, against sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.pooling import MODES
from pairwire.export.errors import CheckpointUnsupported
from pairwire.server.engine import EmbedOptions, Engine, EngineConfig, load_model
from pairwire.server.package import Package
from pairwire.server.runtime.base import Float32Array
from tests import checkpoints, embedders

PROMPTS = {"query": "how does the dog run: ", "document": "text: ", "none": ""}
TEXTS = [*checkpoints.TEXTS, "", "the rain " * 150]
QUICK = EngineConfig(workers=1, warmup_s=0.02, cache_dir="none")
EXACT = 1e-5


@dataclass(frozen=True)
class Case:
    """A checkpoint, as sentence-transformers loads it, and its package."""

    reference: Any
    package: Package

    def expected(self, texts: list[str], prompt_name: str | None = None, **options: Any) -> Float32Array:
        vectors = self.reference.encode(texts, prompt_name=prompt_name, **options)
        return np.asarray(vectors, np.float32)


def chain(directory: Path) -> Path:
    """Modules of every kind: a Dense over tokens, all pooling modes, Normalize in the middle, and a cut at the end."""
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize
    from torch import nn

    return checkpoints.save_bi_encoder(
        directory,
        pooling=MODES,
        before=[Dense(32, 32, activation_function=nn.ReLU(), module_input_name="token_embeddings")],
        after=[
            Normalize(),
            Dense(32 * len(MODES), 24, bias=False, activation_function=nn.GELU()),
            LayerNorm(24),
            Dropout(),
        ],
        prompts=PROMPTS,
        default_prompt_name="query",
        truncate_dim=16,
    )


def leaving_prompts_out(directory: Path) -> Path:
    return checkpoints.save_bi_encoder(
        directory, pooling=MODES, include_prompt=False, normalize=False, prompts=PROMPTS, default_prompt_name="query"
    )


def decoder(directory: Path) -> Path:
    return embedders.save_decoder_bi_encoder(directory, prompts=PROMPTS)


def decoder_leaving_prompts_out(directory: Path) -> Path:
    return embedders.save_decoder_bi_encoder(
        directory, architecture="mistral", language_model=False, pooling="mean", include_prompt=False, prompts=PROMPTS
    )


def instructor(directory: Path) -> Path:
    return embedders.save_instructor(directory, prompts=PROMPTS)


SAVED: dict[str, Callable[[Path], Path]] = {
    "chain": chain,
    "leaving prompts out": leaving_prompts_out,
    "decoder": decoder,
    "decoder leaving prompts out": decoder_leaving_prompts_out,
    "instructor": instructor,
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """The case of a name, made once."""
    from sentence_transformers import SentenceTransformer

    made: dict[str, Case] = {}

    def case(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp("embedders")
            directory = SAVED[name](folder / "checkpoint")
            # The activations of a T5 of random weights are too unlike each other for eight bits.
            precisions = ("fp32",) if name == "instructor" else ("fp32", "int8")
            config = ExportConfig(tune=False, checkpoint=str(directory), output=folder / "model", precisions=precisions)
            package = export_checkpoint(config).package
            made[name] = Case(SentenceTransformer(str(directory), device="cpu"), package)
        return made[name]

    return case


@pytest.mark.parametrize("name", SAVED)
def test_graphs_are_as_near_to_the_checkpoint_as_their_precision_allows(
    name: str, cases: Callable[[str], Case]
) -> None:
    fp32, *others = cases(name).package.manifest.variants
    assert fp32.parity.max_abs_diff < EXACT
    assert fp32.parity.batch_variance < EXACT
    for int8 in others:
        assert int8.parity.spearman > 0.99
        assert int8.parity.batch_variance < EXACT


@pytest.mark.parametrize("name", SAVED)
async def test_vectors_are_those_of_sentence_transformers_with_every_prompt(
    name: str, cases: Callable[[str], Case]
) -> None:
    case = cases(name)
    names = [None, *PROMPTS]
    async with await Engine.open(case.package.directory, config=QUICK) as engine:
        options = [EmbedOptions(prompt_name=each) for each in names]
        results = await asyncio.gather(*(engine.embed(TEXTS, options=each) for each in options))
        literal = await engine.embed(TEXTS, options=EmbedOptions(prompt=""))
    for each, result in zip(names, results, strict=True):
        np.testing.assert_allclose(result.embeddings, case.expected(TEXTS, each), atol=EXACT, rtol=EXACT)
    none = results[names.index("none")]
    np.testing.assert_allclose(literal.embeddings, none.embeddings, atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("name", SAVED)
def test_rows_with_different_prompts_and_rows_without_text_share_a_batch(
    name: str, cases: Callable[[str], Case]
) -> None:
    case = cases(name)
    model = load_model(case.package.directory, QUICK)
    parts = [model.encoder.encode_texts(TEXTS, prompt=prompt) for prompt in PROMPTS.values()]
    rows = [(part, index) for part in parts for index in range(len(TEXTS))]
    longest = max(int(part.lengths.max()) for part in parts)
    vectors = model.runtime.run(model.encoder.assemble(rows, longest, total_rows=len(rows) + 3))
    model.runtime.close()
    expected = [case.expected(TEXTS, each, truncate_dim=model.dimensions) for each in PROMPTS]
    np.testing.assert_allclose(vectors[: len(rows)], np.concatenate(expected), atol=EXACT, rtol=EXACT)
    assert np.isfinite(vectors).all()


def test_the_manifest_says_what_the_checkpoint_does(cases: Callable[[str], Case]) -> None:
    manifest = cases("chain").package.manifest
    assert (manifest.dimensions, manifest.default_dimensions, manifest.normalized) == (24, 16, False)
    assert list(manifest.pooling) == list(MODES)
    assert dict(manifest.prompts) == PROMPTS
    assert [cases(name).package.manifest.prompt_excluded for name in SAVED] == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert list(cases("leaving prompts out").package.manifest.variants[0].inputs)[-1] == "prompt_lengths"
    assert list(cases("decoder").package.manifest.variants[0].inputs) == ["input_ids", "attention_mask"]
    assert cases("decoder").package.manifest.normalized


@pytest.mark.parametrize("name", ["chain", "leaving prompts out"])
def test_int8_ranges_are_those_of_vectors_with_each_prompt(name: str, cases: Callable[[str], Case]) -> None:
    from pairwire.export.texts import range_texts

    case, manifest = cases(name), cases(name).package.manifest
    texts = [text for (text,) in range_texts().inputs]
    vectors = np.concatenate(
        [case.expected(texts, each, truncate_dim=manifest.dimensions) for each in ("query", "document")]
    )
    np.testing.assert_allclose(manifest.int8_low, vectors.min(axis=0), atol=EXACT)
    np.testing.assert_allclose(manifest.int8_high, vectors.max(axis=0), atol=EXACT)


def test_fp16_is_refused_where_prompts_are_left_out(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "checkpoint", include_prompt=False)
    config = ExportConfig(
        tune=False, checkpoint=str(directory), output=tmp_path / "model", precisions=("fp16",), parity=False
    )
    with pytest.raises(CheckpointUnsupported, match="no fp16 variant: its pooling leaves prompts out"):
        export_checkpoint(config)
    assert not (tmp_path / "model").exists()
