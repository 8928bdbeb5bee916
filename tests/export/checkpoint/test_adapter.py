"""Adapters of every layout: the reference and what is traced both give what the trained object gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export.checkpoint import adapter
from pairwire.export.checkpoint.adapter import Adapted
from pairwire.export.checkpoint.checkpoint import Checkpoint, detect_kind, open_checkpoint
from pairwire.export.checkpoint.loading import load_for_tracing, load_reference
from pairwire.export.checkpoint.source import find_source
from pairwire.export.errors import CheckpointNotFound, CheckpointUnsupported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from tests import adapters, architectures, checkpoints, embedders
from tests.adapters import Trained, encoder, lora, plain, results, saved, saved_by_peft

EXACT = 2e-5
ADDED = ["warm mat", "park in"]
"""Parts of the texts, and no tokens."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with quiet_libraries():
        yield


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("base") / "plain")


@pytest.fixture
def editable(adapter_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter_directory, tmp_path / "editable"))


def laid_out(directory: Path, tmp_path: Path, kind: ModelKind | None = None) -> Adapted:
    return adapter.lay_out(directory, tmp_path / "laid-out", kind)


def opened(directory: Path, tmp_path: Path, kind: ModelKind | None = None) -> Checkpoint:
    adapted = laid_out(directory, tmp_path, kind)
    return open_checkpoint(find_source(str(directory)), adapted.directory, kind=kind, adapted=adapted)


def check(trained: Trained, tmp_path: Path, kind: ModelKind | None = None) -> Any:
    """Both loaded objects give what the trained one gave; returns what is traced."""
    adapted = laid_out(trained.directory, tmp_path, kind)
    found = adapted.kind or detect_kind(adapted.directory, kind)
    reference = load_reference(adapted.directory, found, adapted=adapted)
    np.testing.assert_allclose(results(reference), trained.results, atol=EXACT, rtol=1e-5)
    traced = load_for_tracing(adapted.directory, found, adapted=adapted)
    np.testing.assert_allclose(results(traced), trained.results, atol=EXACT, rtol=1e-5)
    assert not any("lora" in name or "original_module" in name for name, _ in traced.named_parameters())
    return traced


def bi_encoder(directory: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu")


def cross_encoder(directory: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(directory), device="cpu")


def test_adapter_is_told_from_a_checkpoint(adapter_directory: Path, cross_encoder_checkpoint: Path) -> None:
    assert adapter.is_adapter(adapter_directory)
    assert not adapter.is_adapter(cross_encoder_checkpoint)


# What lies beside the adapter


@pytest.mark.parametrize(("pooling", "dense"), [("cls", None), ("cls", 16), ("max", None)])
def test_modules_beside_the_adapter_win_over_those_of_its_base(
    pooling: str, dense: int | None, bi_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    model = encoder(bi_encoder_checkpoint, pooling=pooling, dense=dense)
    check(saved(model, tmp_path / "adapter", lora()), tmp_path)


def test_trained_dense_wins_over_that_of_the_base(tmp_path: Path) -> None:
    model = bi_encoder(checkpoints.save_bi_encoder(tmp_path / "base", dense=16))
    check(saved(model, tmp_path / "adapter", lora(), others=["linear"]), tmp_path)


def test_sentence_transformers_adapter_over_a_plain_base(plain_base: Path, tmp_path: Path) -> None:
    check(saved(encoder(plain_base, dense=16), tmp_path / "adapter", lora()), tmp_path)


def test_modular_cross_encoder_keeps_its_trained_dense(tmp_path: Path) -> None:
    model = cross_encoder(checkpoints.save_modular_cross_encoder(tmp_path / "base"))
    check(saved(model, tmp_path / "adapter", lora(), others=["linear"]), tmp_path)


def test_sparse_encoder_keeps_its_head_and_pooling(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    base = embedders.save_sparse_encoder(tmp_path / "base", pooling="sum")
    model = SparseEncoder(str(base), device="cpu")
    check(saved(model, tmp_path / "adapter", lora()), tmp_path)


def test_sparse_adapter_of_peft_over_a_masked_language_model(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(plain(tmp_path / "base", mlm=True)), device="cpu")
    check(saved_by_peft(model, tmp_path / "adapter", lora()), tmp_path, ModelKind.SPARSE_ENCODER)


def test_settings_beside_the_adapter_win_over_those_of_its_base(tmp_path: Path) -> None:
    base = checkpoints.save_bi_encoder(
        tmp_path / "base", prompts={"query": "base: ", "other": "x: "}, default_prompt_name="query"
    )
    model = bi_encoder(base)
    model.prompts, model.default_prompt_name = {"query": "ask: ", "document": ""}, None
    model.similarity_fn_name, model.max_seq_length = "euclidean", 24
    trained = saved(model, tmp_path / "adapter", lora())
    checkpoint = opened(trained.directory, tmp_path)
    assert checkpoint.prompts == {"query": "ask: ", "document": ""}
    assert checkpoint.default_prompt_name == ""
    assert checkpoint.similarity == "euclidean"
    assert checkpoint.rules.max_length == 24
    np.testing.assert_allclose(results(checkpoint.reference), trained.results, atol=EXACT, rtol=1e-5)


def test_activation_and_labels_of_a_saved_cross_encoder(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    base = checkpoints.save_cross_encoder(tmp_path / "base", labels=3)
    model = CrossEncoder(str(base), device="cpu", activation_fn=torch.nn.Softmax(dim=1))
    trained = saved(model, tmp_path / "adapter", lora())
    checkpoint = opened(trained.directory, tmp_path)
    assert list(checkpoint.labels) == ["contradiction", "entailment", "neutral"]
    assert checkpoint.activation.value == "softmax"


# An adapter alone


def test_adapter_over_a_plain_base_is_pooled_by_the_library_s_default(plain_base: Path, tmp_path: Path) -> None:
    trained = saved_by_peft(bi_encoder(plain_base), tmp_path / "adapter", lora(task_type="FEATURE_EXTRACTION"))
    check(trained, tmp_path)
    assert list(opened(trained.directory, tmp_path / "2").pooling) == ["mean"]


def test_adapter_without_modules_keeps_those_of_its_base(tmp_path: Path) -> None:
    base = checkpoints.save_bi_encoder(tmp_path / "base", pooling="cls", dense=16, prompts={"query": "ask: "})
    trained = saved_by_peft(bi_encoder(base), tmp_path / "adapter", lora(task_type="FEATURE_EXTRACTION"))
    check(trained, tmp_path)
    assert opened(trained.directory, tmp_path / "2").prompts["query"] == "ask: "


def test_tokenizer_beside_the_adapter_is_the_one_in_use(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    model = bi_encoder(checkpoints.save_bi_encoder(tmp_path / "base", pooling="cls"))
    # "Zwei Hunde" keeps its capitals.
    model[0].processor = BertTokenizerFast(tokenizer_object=architectures.frozen("word_piece"), do_lower_case=False)
    trained = saved_by_peft(model, tmp_path / "adapter", lora(), tokenizer=True)
    traced = check(trained, tmp_path, ModelKind.BI_ENCODER)
    assert not traced.tokenizer.backend_tokenizer.normalizer.lowercase


def test_directory_that_the_library_loads_by_itself_is_read_as_it_reads_it(tmp_path: Path) -> None:
    base = checkpoints.save_bi_encoder(tmp_path / "base", pooling="cls")
    directory = saved_by_peft(
        bi_encoder(base), tmp_path / "adapter", lora(task_type="FEATURE_EXTRACTION"), tokenizer=True
    ).directory
    shutil.copy(base / "config.json", directory)
    expected = results(bi_encoder(directory))
    check(Trained(directory, expected), tmp_path)
    checkpoint = opened(directory, tmp_path / "2")
    assert list(checkpoint.pooling) == ["mean"]
    assert len(checkpoint.warnings) == 1
    assert "brings no modules.json" in checkpoint.warnings[0]


@pytest.mark.parametrize("modules", ["base", "adapter"])
def test_base_whose_transformer_lies_in_a_folder(modules: str, tmp_path: Path) -> None:
    base = checkpoints.save_bi_encoder(tmp_path / "base", pooling="cls", max_length=64)
    if modules == "base":
        trained = saved_by_peft(bi_encoder(base), tmp_path / "adapter", lora(), tokenizer=True)
    else:
        trained = saved(encoder(base, pooling="max"), tmp_path / "adapter", lora())
    adapters.in_folder(base)
    check(trained, tmp_path, ModelKind.BI_ENCODER)
    assert opened(trained.directory, tmp_path / "2", ModelKind.BI_ENCODER).rules.max_length <= 128


# Heads


@pytest.mark.parametrize("by", [saved, saved_by_peft])
def test_head_that_was_not_trained_comes_from_the_base(by: Any, cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    check(by(cross_encoder(cross_encoder_checkpoint), tmp_path / "adapter", lora()), tmp_path)


def test_frozen_head_of_a_classifier_s_task(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    check(saved(cross_encoder(cross_encoder_checkpoint), tmp_path / "adapter", lora(task_type="SEQ_CLS")), tmp_path)


@pytest.mark.parametrize("by", [saved, saved_by_peft])
@pytest.mark.parametrize("labels", [1, 3])
def test_trained_head_comes_with_the_adapter(by: Any, labels: int, tmp_path: Path) -> None:
    base = checkpoints.save_cross_encoder(tmp_path / "base", labels=labels)
    config = lora(task_type="SEQ_CLS", modules_to_save=["classifier"])
    check(by(cross_encoder(base), tmp_path / "adapter", config), tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_head_over_a_base_that_has_none(architecture: str, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(plain(tmp_path / "base", architecture=architecture)), num_labels=3, device="cpu")
    targets = ["q_lin", "dense"] if architecture == "distilbert" else ["query", "dense"]
    heads = ["pre_classifier", "classifier", "pooler"]  # not only the last layer of a head is trained
    config = lora(task_type="SEQ_CLS", modules_to_save=heads, target_modules=targets, exclude_modules=".*pooler.*")
    trained = saved_by_peft(model, tmp_path / "adapter", config)
    check(trained, tmp_path)
    assert len(opened(trained.directory, tmp_path / "2").labels) == 3


def test_head_with_other_labels_than_that_of_the_base(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    base = checkpoints.save_cross_encoder(tmp_path / "base", labels=3)
    model = CrossEncoder(str(base), num_labels=2, device="cpu", model_kwargs={"ignore_mismatched_sizes": True})
    check(saved_by_peft(model, tmp_path / "adapter", lora(task_type="SEQ_CLS")), tmp_path)


def test_head_of_an_earlier_peft_that_does_not_name_it(tmp_path: Path) -> None:
    base = checkpoints.save_cross_encoder(tmp_path / "base", architecture="roberta")
    config = lora(task_type="SEQ_CLS", target_modules=["query", "dense"])
    trained = saved_by_peft(cross_encoder(base), tmp_path / "adapter", config)
    checkpoints.edit_json(trained.directory / adapter.CONFIG_FILE, modules_to_save=None)
    check(trained, tmp_path)


def test_classifier_over_a_decoder_that_is_a_language_model(tmp_path: Path) -> None:
    from peft import get_peft_model
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    base = checkpoints.save_decoder_reranker(tmp_path / "base", template=None)
    model = CrossEncoder(modules=[Transformer(str(base), transformer_task="sequence-classification")], device="cpu")
    config = lora(task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model[0].model, config)
    adapters.train(adapted, others=["modules_to_save"])
    trained = Trained(tmp_path / "adapter", results(model))
    adapted.save_pretrained(str(trained.directory))
    check(trained, tmp_path)


@pytest.mark.parametrize("head", [{}, {"modules_to_save": ["lm_head"]}, {"exclude_modules": ["up_proj"]}])
def test_adapter_of_a_decoder_reranker(head: dict[str, Any], tmp_path: Path) -> None:
    base = checkpoints.save_decoder_reranker(tmp_path / "base")
    targets = ["q_proj", "v_proj", "down_proj", *(["lm_head"] if "exclude_modules" in head else [])]
    config = lora(task_type="CAUSAL_LM", target_modules=targets, **head)
    trained = saved_by_peft(cross_encoder(base), tmp_path / "adapter", config)
    check(trained, tmp_path)
    assert opened(trained.directory, tmp_path / "2").rules.template is not None


def test_adapter_of_a_decoder_embedder(tmp_path: Path) -> None:
    base = checkpoints.save_decoder_reranker(tmp_path / "base", template=None)
    config = lora(task_type="FEATURE_EXTRACTION", target_modules=["q_proj", "v_proj"])
    trained = saved_by_peft(bi_encoder(base), tmp_path / "adapter", config)
    assert list(check(trained, tmp_path)[1].pooling_mode.split()) == ["lasttoken"]


def test_adapter_without_a_classifier_over_a_base_without_one_is_refused(plain_base: Path, tmp_path: Path) -> None:
    trained = saved_by_peft(bi_encoder(plain_base), tmp_path / "adapter", lora())
    checkpoints.edit_json(trained.directory / adapter.CONFIG_FILE, task_type="SEQ_CLS")
    with pytest.raises(CheckpointUnsupported, match=r"neither the adapter nor its base plain brings a classifier"):
        laid_out(trained.directory, tmp_path)


# Tokens


@pytest.mark.parametrize("by", [saved, saved_by_peft])
def test_added_tokens_bring_their_rows(by: Any, bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    model = bi_encoder(bi_encoder_checkpoint)
    model.tokenizer.add_tokens(ADDED)
    model[0].model.resize_token_embeddings(len(model.tokenizer))
    options = {"tokenizer": True} if by is saved_by_peft else {}
    traced = check(by(model, tmp_path / "adapter", lora(), **options), tmp_path, ModelKind.BI_ENCODER)
    assert traced[0].model.get_input_embeddings().num_embeddings == len(model.tokenizer)


def test_added_tokens_of_a_sparse_encoder(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(embedders.save_sparse_encoder(tmp_path / "base")), device="cpu")
    model.tokenizer.add_tokens(ADDED)
    model[0].model.resize_token_embeddings(len(model.tokenizer))
    check(saved(model, tmp_path / "adapter", lora()), tmp_path)


@pytest.mark.parametrize("by", [saved, saved_by_peft])
@pytest.mark.parametrize("added", [False, True])
def test_tokens_that_were_trained_one_by_one(by: Any, added: bool, bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    model = bi_encoder(bi_encoder_checkpoint)
    ids = model.tokenizer("the cat", add_special_tokens=False).input_ids
    if added:
        model.tokenizer.add_tokens(ADDED)
        ids = model.tokenizer.convert_tokens_to_ids(ADDED)
        model[0].model.resize_token_embeddings(len(model.tokenizer))
    config = lora(trainable_token_indices=sorted(set(ids)))
    options = {"tokenizer": True} if by is saved_by_peft else {}
    check(by(model, tmp_path / "adapter", config, **options), tmp_path, ModelKind.BI_ENCODER)


def test_added_token_whose_row_nobody_saved_is_refused(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = bi_encoder(bi_encoder_checkpoint)
    model.tokenizer.add_tokens(ADDED)
    model[0].model.resize_token_embeddings(len(model.tokenizer))
    config = lora(trainable_token_indices=[model.tokenizer.convert_tokens_to_ids(ADDED[1])])
    trained = saved(model, tmp_path / "adapter", config)
    file = trained.directory / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if tensor.shape[0] != len(model.tokenizer)}
    save_file(kept, file)
    with pytest.raises(CheckpointUnsupported, match=r"1 added tokens .'warm mat'"):
        check(trained, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["word_embeddings", "position_embeddings", "query"]},
        {"trainable_token_indices": [20, 21]},
        {"modules_to_save": ["word_embeddings"]},
    ],
    ids=lambda options: ",".join(options),
)
def test_limits_are_read_through_the_layers_of_an_adapter(
    options: dict[str, Any], cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    trained = saved(cross_encoder(cross_encoder_checkpoint), tmp_path / "adapter", lora(**options))
    plain_one = open_checkpoint(find_source(str(cross_encoder_checkpoint)), cross_encoder_checkpoint)
    assert opened(trained.directory, tmp_path).rules == plain_one.rules


# Kinds of adapters


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True, "use_rslora": True},
        {"rank_pattern": {"value": 2}, "alpha_pattern": {"query": 3}},
        {"target_modules": ["word_embeddings", "query"]},
        {"target_modules": r".*layer\.1\..*(query|dense)"},
        {"bias": "lora_only"},
    ],
    ids=lambda options: ",".join(options),
)
def test_kinds_of_lora(options: dict[str, Any], bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    model = bi_encoder(bi_encoder_checkpoint)
    others = ["base_layer.bias"] if "bias" in options else []
    check(saved(model, tmp_path / "adapter", lora(**options), others=others), tmp_path)


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "OFTConfig", "VeraConfig"])
def test_other_adapters_that_can_be_merged(kind: str, bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    import peft

    options: dict[str, Any] = {"target_modules": ["query", "value"]}
    if kind == "IA3Config":
        options |= {"feedforward_modules": []}
    model = bi_encoder(bi_encoder_checkpoint)
    check(saved_by_peft(model, tmp_path / "adapter", getattr(peft, kind)(**options)), tmp_path)


def test_adapter_that_adds_tokens_is_refused(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    model = bi_encoder(bi_encoder_checkpoint)
    config = PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    get_peft_model(model[0].model, config).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointUnsupported, match="PREFIX_TUNING adds tokens"):
        check(Trained(tmp_path / "adapter", np.zeros(0)), tmp_path)


def test_pickled_adapter_is_read_as_tensors(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    trained = saved(bi_encoder(bi_encoder_checkpoint), tmp_path / "adapter", lora())
    file = trained.directory / adapter.WEIGHTS[0]
    torch.save(load_file(file), trained.directory / adapter.WEIGHTS[1])
    file.unlink()
    check(trained, tmp_path)


# Bases


def test_adapter_over_an_adapter(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    first = saved(encoder(bi_encoder_checkpoint, pooling="max"), tmp_path / "first", lora())
    model = bi_encoder(laid_out(first.directory, tmp_path / "a").directory)
    adapted = laid_out(first.directory, tmp_path / "b")
    model = load_for_tracing(adapted.directory, ModelKind.BI_ENCODER, adapted=adapted)
    second = saved(model, tmp_path / "second", lora(r=2, target_modules=["key"]))
    checkpoints.edit_json(second.directory / adapter.CONFIG_FILE, base_model_name_or_path=str(first.directory))
    check(second, tmp_path)


def test_adapter_that_stands_on_itself_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path=str(editable))
    with pytest.raises(CheckpointUnsupported, match="editable stands on itself"):
        laid_out(editable, tmp_path)


def test_base_by_a_path_from_the_adapter(cross_encoder_checkpoint: Path, editable: Path, tmp_path: Path) -> None:
    shutil.copytree(cross_encoder_checkpoint, tmp_path / "its-base")
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path="../its-base")
    assert laid_out(editable, tmp_path).base.samefile(tmp_path / "its-base")


def test_base_by_a_path_from_where_one_stands(
    cross_encoder_checkpoint: Path, editable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cross_encoder_checkpoint.parent)
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path=f"./{cross_encoder_checkpoint.name}")
    checkpoint = opened(editable, tmp_path)
    assert checkpoint.kind is ModelKind.CROSS_ENCODER


def test_missing_base_is_named(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path="/nowhere/base")
    with pytest.raises(CheckpointNotFound, match="the adapter's base model is missing: /nowhere/base"):
        laid_out(editable, tmp_path)


def test_adapter_without_a_base_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path=None)
    with pytest.raises(CheckpointUnsupported, match="base_model_name_or_path is empty"):
        laid_out(editable, tmp_path)


def test_adapter_for_another_task_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, task_type="TOKEN_CLS")
    with pytest.raises(CheckpointUnsupported, match="task_type 'TOKEN_CLS'"):
        laid_out(editable, tmp_path)


# Adapters that belong elsewhere


def test_adapter_for_another_architecture_is_refused(editable: Path, tmp_path: Path) -> None:
    base = checkpoints.save_cross_encoder(tmp_path / "base", architecture="distilbert")
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, base_model_name_or_path=str(base))
    with pytest.raises(CheckpointUnsupported, match=r"does not fit its base .*No modules were targeted"):
        opened(editable, tmp_path)


def test_adapter_for_a_deeper_base_is_refused(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    deep = checkpoints.save_cross_encoder(tmp_path / "deep", layers=3)
    trained = saved_by_peft(cross_encoder(deep), tmp_path / "adapter", lora())
    checkpoints.edit_json(
        trained.directory / adapter.CONFIG_FILE, base_model_name_or_path=str(cross_encoder_checkpoint)
    )
    with pytest.raises(CheckpointUnsupported, match=r"the base has no place for .*layer\.2.* and 1 more"):
        opened(trained.directory, tmp_path)


def test_adapter_for_a_shallower_base_is_refused(tmp_path: Path, cross_encoder_checkpoint: Path) -> None:
    trained = saved_by_peft(cross_encoder(cross_encoder_checkpoint), tmp_path / "adapter", lora())
    deep = checkpoints.save_cross_encoder(tmp_path / "deep", layers=3)
    checkpoints.edit_json(trained.directory / adapter.CONFIG_FILE, base_model_name_or_path=str(deep))
    with pytest.raises(CheckpointUnsupported, match=r"names layers that the adapter's file lacks: .*layer\.2"):
        opened(trained.directory, tmp_path)


def test_adapter_of_another_rank_is_refused(editable: Path, tmp_path: Path) -> None:
    checkpoints.edit_json(editable / adapter.CONFIG_FILE, r=8)
    with pytest.raises(CheckpointUnsupported, match=r"does not fit its base .*size mismatch for .*lora_A"):
        opened(editable, tmp_path)


def test_encoder_s_adapter_in_a_classifier_is_refused(
    bi_encoder_checkpoint: Path, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    trained = saved_by_peft(bi_encoder(bi_encoder_checkpoint), tmp_path / "adapter", lora())
    checkpoints.edit_json(
        trained.directory / adapter.CONFIG_FILE, base_model_name_or_path=str(cross_encoder_checkpoint)
    )
    with pytest.raises(CheckpointUnsupported, match=r"no place for .* another kind"):
        opened(trained.directory, tmp_path)


def test_adapter_without_weights_is_refused(editable: Path, tmp_path: Path) -> None:
    (editable / adapter.WEIGHTS[0]).unlink()
    with pytest.raises(CheckpointUnsupported, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        laid_out(editable, tmp_path)


def test_damaged_configuration_is_a_sentence(editable: Path, tmp_path: Path) -> None:
    config = json.loads((editable / adapter.CONFIG_FILE).read_text())
    (editable / adapter.CONFIG_FILE).write_text(json.dumps(config | {"peft_type": "NONE_SUCH"}))
    with pytest.raises(CheckpointUnsupported, match="editable: the adapter does not fit its base"):
        opened(editable, tmp_path)
