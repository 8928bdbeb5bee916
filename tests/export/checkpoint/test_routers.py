"""Sparse encoders whose queries are looked up: one package with both ways, compared with sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export import CheckpointUnsupported, ExportConfig, export_checkpoint
from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.exporter import Exported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine import Engine, EngineConfig, SparseOptions
from pairwire.server.engine.kinds import InputType
from pairwire.v1 import embedding_pb2
from tests import checkpoints, embedders

TEXTS = ["a cat sleeps on the warm mat", "", "ok ok", "the dog runs " * 60, "[CLS] rain [SEP]", "\u0bb5"]
PROMPTS = {"query": "query: "}


def opened(directory: Path, **options: Any) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory, **options)


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedders.save_routed_sparse_encoder(tmp_path_factory.mktemp("routed") / "routed", prompts=PROMPTS)


@pytest.fixture(scope="module")
def exported(routed: Path) -> Exported:
    config = ExportConfig(tune=False, checkpoint=str(routed), output=routed.with_name("package"), precisions=("fp32",))
    with quiet_libraries():
        return export_checkpoint(config)


def wanted(checkpoint: Path, method: str, **how: Any) -> Any:
    """[texts, vocabulary] of sentence-transformers' own ``encode``, ``encode_query`` or ``encode_document``."""
    from sentence_transformers import SparseEncoder

    with quiet_libraries():
        model = SparseEncoder(str(checkpoint), device="cpu")
        return np.asarray(getattr(model, method)(TEXTS, convert_to_sparse_tensor=False, **how))


async def served(package: Path, input_type: InputType | None, **options: Any) -> Any:
    async with await Engine.open(package, config=EngineConfig(workers=1, warmup_s=0.05)) as engine:
        found = await engine.embed_sparse(TEXTS, options=SparseOptions(input_type=input_type, **options))
    dense = np.zeros((len(TEXTS), found.dimensions), np.float32)
    dense[np.repeat(np.arange(len(TEXTS)), found.counts), found.indices] = found.values
    return dense


async def test_both_ways_are_those_of_sentence_transformers(routed: Path, exported: Exported) -> None:
    package = exported.package.directory
    queries = await served(package, InputType.QUERY, prompt_name="query")
    np.testing.assert_array_equal(queries, wanted(routed, "encode_query"))
    documents = wanted(routed, "encode_document")
    np.testing.assert_allclose(await served(package, InputType.DOCUMENT), documents, atol=1e-5)
    np.testing.assert_allclose(await served(package, None), documents, atol=1e-5)
    np.testing.assert_allclose(await served(package, None), wanted(routed, "encode"), atol=1e-5)
    assert np.abs(queries - documents).max() > 1


async def test_the_largest_weights_of_a_query_alone(routed: Path, exported: Exported) -> None:
    found = await served(exported.package.directory, InputType.QUERY, max_active_dims=2)
    np.testing.assert_array_equal(found, wanted(routed, "encode_query", prompt="", max_active_dims=2))


def test_the_manifest_says_both(exported: Exported) -> None:
    manifest = exported.package.manifest
    table = manifest.query_table
    assert manifest.default_input_type == embedding_pb2.INPUT_TYPE_DOCUMENT
    assert (table.samples, table.max_abs_diff) == (90, 0)
    assert table.max_length == manifest.max_length == 128
    size = (exported.package.directory / table.file).stat().st_size
    assert size == 4 * manifest.dimensions == 4 * manifest.vocab_size
    assert exported.parity is not None  # of documents
    assert exported.parity.passed


async def test_no_default_stays_none_and_limits_are_followed(tmp_path: Path) -> None:
    checkpoint = embedders.save_routed_sparse_encoder(tmp_path / "routed", default_route=None)
    found = opened(checkpoint, max_length=16)
    assert found.queries is not None
    assert (found.queries.default, found.queries.max_length, found.rules.max_length) == (None, 16, 16)


def test_other_routers_are_refused_by_what_they_are(routed: Path, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sentence_transformer.modules import Router

    with quiet_libraries():
        documents = list(SparseEncoder(str(routed.with_name("routed-documents")), device="cpu"))
        router = Router.for_query_document(query_modules=documents, document_modules=documents)
        SparseEncoder(modules=[router], device="cpu").save(str(tmp_path / "two"), create_model_card=False)
    with pytest.raises(
        CheckpointUnsupported, match=r"a Router \(query: Transformer, SpladePooling; document: .*looked up"
    ):
        opened(tmp_path / "two")


def test_weights_below_zero_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    checkpoint = embedders.save_routed_sparse_encoder(tmp_path / "routed")
    file = checkpoint / "query_0_SparseStaticEmbedding" / "model.safetensors"
    save_file({name: -values for name, values in load_file(file).items()}, file)
    with pytest.raises(CheckpointUnsupported, match="must be finite and not below 0; the checkpoint is damaged"):
        opened(checkpoint)


def test_an_encoder_that_pads_on_the_left_is_read_where_positions_are_relative(tmp_path: Path) -> None:
    gemma = embedders.save_embedding_gemma(tmp_path / "gemma", prompts=PROMPTS)
    found = opened(gemma)
    assert found.reference.tokenizer.padding_side == "left"
    assert (found.architecture, found.prompts) == ("gemma3_text", {**PROMPTS, "document": ""})
    bert = checkpoints.save_bi_encoder(tmp_path / "bert", layers=1)
    checkpoints.edit_json(bert / "tokenizer_config.json", padding_side="left")
    with pytest.raises(CheckpointUnsupported, match="padding on the left"):
        opened(bert)
