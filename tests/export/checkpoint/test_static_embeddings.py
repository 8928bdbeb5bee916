"""Encoders without a transformer: the mean of rows of a table, exported and compared with sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pairwire.export import CheckpointUnsupported, ExportConfig, export_checkpoint
from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.checkpoint.static_embeddings import MOST_TOKENS
from pairwire.export.exporter import Exported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine import EmbedOptions, EmbedResult, Encoding, Engine, EngineConfig
from pairwire.server.engine.encodings import encode_vectors
from pairwire.server.errors import ConfigInvalid
from tests import tables

CLOSE = 1e-5
"""torch adds up in float32; the graph does in float64."""
TEXTS = ["a cat sleeps on the warm mat", "", "ok", "the dog runs " * 50, "[CLS] rain [SEP]", "\u0bb5"]


def export(checkpoint: Path, *precisions: str, **options: Any) -> Exported:
    config = ExportConfig(
        checkpoint=str(checkpoint),
        output=checkpoint.with_name(f"{checkpoint.name}-package"),
        precisions=precisions or ("fp32",),
        **options,
    )
    with quiet_libraries():
        return export_checkpoint(config)


def opened(directory: Path, **options: Any) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory, **options)


def wanted(checkpoint: Path, texts: list[str], **how: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    with quiet_libraries():
        return SentenceTransformer(str(checkpoint), device="cpu").encode(texts, **how)


async def served(package: Path, texts: list[str], variant: str = "cpu-fp32", **options: Any) -> EmbedResult:
    async with await Engine.open(package, config=EngineConfig(workers=1, warmup_s=0.05, variant=variant)) as engine:
        return await engine.embed(texts, options=EmbedOptions(**options))


async def test_a_table_is_served_as_any_bi_encoder(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    prompts = {"query": "query: "}
    after = (Dense(tables.DIMENSIONS, 24), Normalize())
    checkpoint = tables.save_static(tmp_path / "static", after=after, prompts=prompts)
    exported = export(checkpoint, "fp32", "int8")
    manifest = exported.package.manifest
    assert (manifest.architecture, manifest.dimensions, manifest.normalized) == ("static", 24, True)
    assert (manifest.vocab_size, manifest.empty_token_id) == (tables.ROWS, tables.ROWS)
    found = await served(exported.package.directory, TEXTS)
    np.testing.assert_allclose(found.embeddings, wanted(checkpoint, TEXTS), atol=CLOSE)
    asked = await served(exported.package.directory, TEXTS, prompt_name="query", dimensions=8, normalize=True)
    np.testing.assert_allclose(
        asked.embeddings,
        wanted(checkpoint, TEXTS, prompt_name="query", truncate_dim=8, normalize_embeddings=True),
        atol=CLOSE,
    )
    small = await served(exported.package.directory, TEXTS, "cpu-int8")
    assert 1e-6 < np.abs(small.embeddings - found.embeddings).max() < 0.02
    assert exported.parity is not None
    assert [each.summary.batch_variance for each in exported.parity.variants] == [0, 0]


async def test_an_empty_text_has_a_vector_of_zeros_whatever_it_is_batched_with(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static")
    package = export(checkpoint).package.directory
    async with await Engine.open(package, config=EngineConfig(workers=1, warmup_s=0.05)) as engine:
        for texts in ([""], ["", "a cat", ""], ["\u200b", "the " * 300]):
            found = (await engine.embed(texts)).embeddings
            np.testing.assert_array_equal(found[0], np.zeros(tables.DIMENSIONS))
            np.testing.assert_allclose(found, wanted(checkpoint, texts), atol=CLOSE)


async def test_vectors_are_cut_where_the_checkpoint_cuts_them(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static", truncate_dim=16)
    exported = export(checkpoint)
    assert exported.package.manifest.default_dimensions == 16
    found = await served(exported.package.directory, TEXTS)
    np.testing.assert_allclose(found.embeddings, wanted(checkpoint, TEXTS), atol=CLOSE)


async def test_int8_vectors_can_be_had(tmp_path: Path) -> None:
    package = export(tables.save_static(tmp_path / "static")).package.directory
    async with await Engine.open(package, config=EngineConfig(workers=1, warmup_s=0.05)) as engine:
        found = await engine.embed(TEXTS)
        info = engine.find("")
        vectors = encode_vectors(found.embeddings, Encoding.INT8, info)
    low, high = np.array(info.manifest.int8_low), np.array(info.manifest.int8_high)
    steps = (high - low) / 255
    decoded = low + (vectors.astype(float) + 128) * steps
    inside = (found.embeddings > low) & (found.embeddings < high)
    assert inside.mean() > 0.8
    assert np.abs(decoded - found.embeddings)[inside].max() < steps.max()


async def test_a_tokenizer_that_cuts_is_followed_and_a_limit_can_be_given(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "cut", most_tokens=20)
    exported = export(checkpoint)
    assert exported.package.manifest.max_length == 20
    long = ["the dog runs " * 50]
    found = await served(exported.package.directory, long)
    np.testing.assert_allclose(found.embeddings, wanted(checkpoint, long), atol=CLOSE)
    assert found.usage.truncated_inputs == (0,)
    with pytest.raises(CheckpointUnsupported, match="max-length 21 is more than the checkpoint reads: at most 20"):
        opened(checkpoint, max_length=21)
    assert opened(checkpoint, max_length=12).rules.max_length == 12


def test_a_text_of_any_length_is_worth_a_warning(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static")
    found = opened(checkpoint)
    assert found.rules.max_length == MOST_TOKENS
    assert "--max-length N" in found.warnings[0]
    assert not opened(checkpoint, max_length=100_000).warnings


@pytest.mark.parametrize("pieces", ["xlm-roberta", "roberta"])
async def test_other_tokenizers(pieces: str, tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static", pieces=pieces)
    found = await served(export(checkpoint).package.directory, TEXTS)
    np.testing.assert_allclose(found.embeddings, wanted(checkpoint, TEXTS), atol=CLOSE)


async def test_a_potion_is_served_as_sentence_transformers_does(tmp_path: Path) -> None:
    checkpoint = tables.save_potion(tmp_path / "potion")
    exported = export(checkpoint)
    assert exported.package.manifest.normalized
    found = await served(exported.package.directory, TEXTS)
    np.testing.assert_allclose(found.embeddings, wanted(checkpoint, TEXTS), atol=CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
async def test_a_potion_in_parts_is_what_model2vec_makes_of_it(dtype: str, tmp_path: Path) -> None:
    """``embeddings[mapping[id]] * weights[id]``, averaged, and of unit length: model2vec 0.10, `StaticModel.encode`."""
    checkpoint = tables.save_potion(tmp_path / "potion", clusters=40, dtype=dtype)
    package = export(checkpoint).package.directory
    tensors = load_file(checkpoint / "model.safetensors")
    texts = [text for text in TEXTS if text != "\u0bb5"]  # model2vec leaves unknown words out, and the library does not
    found = await served(package, texts)
    tokenizer = opened(checkpoint).reference[0].tokenizer
    expected = np.zeros((len(texts), tables.DIMENSIONS))
    for row, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if ids:
            rows = tensors["embeddings"].astype(np.float64)[tensors["mapping"][ids]]
            expected[row] = (rows * tensors["weights"][ids][:, None]).mean(axis=0)
            expected[row] /= np.linalg.norm(expected[row])
    np.testing.assert_allclose(found.embeddings, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mapping": np.full(tables.ROWS, 40)}, "leads out of a table of 40 rows"),
        ({"weights": np.ones(7, np.float32)}, r"weights are \(7,\) for 1100 tokens"),
        ({"embeddings": np.ones(7, np.float32)}, "expected a table embedding.weight or embeddings"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    checkpoint = tables.save_potion(tmp_path / "potion", clusters=40)
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | changed, file)
    with pytest.raises(CheckpointUnsupported, match=reason):
        opened(checkpoint)


def test_a_module_that_is_not_known_is_refused(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static")
    modules = json.loads((checkpoint / "modules.json").read_text())
    again = modules[0] | {"idx": 1, "name": "1"}
    (checkpoint / "modules.json").write_text(json.dumps([*modules, again]))
    with pytest.raises(CheckpointUnsupported, match="StaticEmbedding after Pooling is not exported"):
        opened(checkpoint)


def test_there_is_no_variant_for_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnsupported, match="no fp16 variant: looking up rows of a table is no work for a GPU"):
        export(tables.save_static(tmp_path / "static"), "fp16", parity=False)


def test_a_table_has_no_layers_to_measure(tmp_path: Path) -> None:
    checkpoint = tables.save_static(tmp_path / "static")
    assert export(checkpoint, "int8", sensitivity=True).parity is not None
    with pytest.raises(ConfigInvalid, match="keep-float: 1 is too many; 0 layers were measured"):
        export(checkpoint, "int8", keep_float=1, force=True)
