"""Sparse encoders, from the checkpoint to indices and values of the engine, against sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.checkpoint import detect_kind, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.errors import CheckpointUnsupported
from pairwire.server.engine import Engine, EngineConfig, SparseOptions, SparseResult, load_model
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.sparse import MOST_BYTES
from pairwire.server.errors import InvalidInput
from pairwire.server.package import Package
from pairwire.server.runtime.base import Float32Array
from tests import checkpoints, embedders

PROMPTS = {"query": "how does the dog run: ", "document": ""}
TEXTS = [*checkpoints.TEXTS, "", "the rain " * 150]
QUICK = EngineConfig(workers=1, warmup_s=0.02, cache_dir="none")
EXACT = 1e-5
SAVED: dict[str, dict[str, Any]] = {
    "bert-max": {"prompts": PROMPTS},
    "distilbert-sum": {"architecture": "distilbert", "pooling": "sum", "activation": "log1p_relu"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Package]]:
    """The encoder of a name, as sentence-transformers loads it, and its package; made once."""
    from sentence_transformers import SparseEncoder

    known: dict[str, tuple[Any, Package]] = {}

    def make(name: str) -> tuple[Any, Package]:
        if name not in known:
            folder = tmp_path_factory.mktemp("sparse")
            directory = embedders.save_sparse_encoder(folder / "checkpoint", **SAVED[name])
            config = ExportConfig(
                tune=False, checkpoint=str(directory), output=folder / "model", precisions=("fp32", "int8")
            )
            package = export_checkpoint(config).package
            known[name] = SparseEncoder(str(directory), device="cpu"), package
        return known[name]

    return make


def expected(reference: Any, texts: list[str], **options: Any) -> Float32Array:
    return np.asarray(reference.encode(texts, convert_to_sparse_tensor=False, **options), np.float32)


def dense(result: SparseResult) -> Float32Array:
    whole = np.zeros((len(result.counts), result.dimensions), np.float32)
    whole[np.repeat(np.arange(len(whole)), result.counts), result.indices] = result.values
    return whole


@pytest.mark.parametrize("name", SAVED)
def test_graphs_are_as_near_to_the_checkpoint_as_their_precision_allows(
    name: str, made: Callable[[str], tuple[Any, Package]]
) -> None:
    fp32, int8 = made(name)[1].manifest.variants
    assert fp32.parity.max_abs_diff < EXACT * max(1.0, float(expected(made(name)[0], TEXTS).max()))
    assert fp32.parity.batch_variance < EXACT
    assert int8.parity.spearman > 0.99
    assert {report.name: report.rewritten for report in int8.passes}["quantize_matmul"] == 14  # the head's two as well


@pytest.mark.parametrize("name", SAVED)
async def test_weights_are_those_of_sentence_transformers(
    name: str, made: Callable[[str], tuple[Any, Package]]
) -> None:
    reference, package = made(name)
    async with await Engine.open(package.directory, config=QUICK) as engine:
        result = await engine.embed_sparse(TEXTS)
    assert result.dimensions == package.manifest.dimensions == reference.get_embedding_dimension()
    assert result.model == "model"
    assert result.usage.truncated_inputs == (len(TEXTS) - 1,)
    np.testing.assert_allclose(dense(result), expected(reference, TEXTS), atol=EXACT, rtol=EXACT)
    assert 0.1 < np.count_nonzero(dense(result)) / dense(result).size < 0.9  # so that zeros are looked at too
    assert (result.values > 0).all()


async def test_prompts_and_the_number_of_weights_follow_the_request(
    made: Callable[[str], tuple[Any, Package]],
) -> None:
    reference, package = made("bert-max")
    async with await Engine.open(package.directory, config=QUICK) as engine:
        query, few, none = await asyncio.gather(
            engine.embed_sparse(TEXTS, options=SparseOptions(prompt_name="query")),
            engine.embed_sparse(TEXTS, options=SparseOptions(prompt="text: ", max_active_dims=7)),
            engine.embed_sparse(TEXTS, options=SparseOptions(prompt_name="document")),
        )
        with pytest.raises(InvalidInput, match="max_active_dims: 0; at least 1"):
            await engine.embed_sparse(TEXTS, options=SparseOptions(max_active_dims=0))
        most = MOST_BYTES // (4 * none.dimensions)
        with pytest.raises(InvalidInput, match=rf"texts: {most + 1} texts .* send at most {most} texts in one call"):
            await engine.embed_sparse(["a"] * (most + 1))
    np.testing.assert_allclose(dense(query), expected(reference, TEXTS, prompt_name="query"), atol=EXACT, rtol=EXACT)
    np.testing.assert_allclose(
        dense(few), expected(reference, TEXTS, prompt="text: ", max_active_dims=7), atol=EXACT, rtol=EXACT
    )
    assert few.counts.tolist() == [7] * len(TEXTS)
    np.testing.assert_allclose(dense(none), expected(reference, TEXTS), atol=EXACT, rtol=EXACT)


def test_rows_without_text_do_not_touch_the_others(made: Callable[[str], tuple[Any, Package]]) -> None:
    reference, package = made("bert-max")
    model = load_model(package.directory, QUICK)
    rows = model.encoder.encode_texts(TEXTS)
    batch = model.encoder.assemble(
        [(rows, index) for index in range(len(rows))], int(rows.lengths.max()), total_rows=len(rows) + 2
    )
    weights = model.runtime.run(batch)
    model.runtime.close()
    np.testing.assert_allclose(weights[: len(rows)], expected(reference, TEXTS), atol=EXACT, rtol=EXACT)
    assert np.isfinite(weights).all()


def test_the_manifest_says_what_the_checkpoint_does(made: Callable[[str], tuple[Any, Package]]) -> None:
    first, second = (made(name)[1].manifest for name in SAVED)
    assert list(first.pooling) == ["splade_max", "relu"]
    assert list(second.pooling) == ["splade_sum", "log1p_relu"]
    assert (first.similarity, first.max_active_dims, first.normalized) == ("dot", 0, False)
    assert dict(first.prompts) == PROMPTS
    assert not first.int8_low


def test_a_language_model_is_a_sparse_encoder_where_a_person_says_so(
    made: Callable[[str], tuple[Any, Package]], tmp_path: Path
) -> None:
    directory = embedders.save_sparse_encoder(tmp_path / "checkpoint")
    plain = directory.with_name("checkpoint-transformer")
    with pytest.raises(CheckpointUnsupported, match="no classification head"):
        detect_kind(plain)
    checkpoint = open_checkpoint(find_source(str(plain)), plain, kind=ModelKind.SPARSE_ENCODER)
    assert list(checkpoint.pooling) == ["splade_max", "relu"]
    with pytest.raises(CheckpointUnsupported, match="asked for a bi-encoder, but it is a sparse encoder"):
        detect_kind(directory, ModelKind.BI_ENCODER)
    bert = checkpoints.save_bi_encoder(tmp_path / "bert")
    with pytest.raises(CheckpointUnsupported, match=r"asked for a sparse encoder; expected .* a \.\.\.ForMaskedLM"):
        detect_kind(bert, ModelKind.SPARSE_ENCODER)


def test_a_sparse_encoder_that_is_not_splade_is_refused(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "checkpoint", normalize=False)
    checkpoints.edit_json(directory / "config_sentence_transformers.json", model_type="SparseEncoder")
    with pytest.raises(CheckpointUnsupported, match=r"a sparse encoder of Transformer, Pooling; .* with SpladePooling"):
        open_checkpoint(find_source(str(directory)), directory)
