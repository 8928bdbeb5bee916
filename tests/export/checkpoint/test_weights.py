from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.loading import load_reference
from pairwire.export.errors import CheckpointUnsupported, WeightsInvalid
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from tests import architectures, checkpoints, embedders

Tensors = dict[str, Any]
FILE = "model.safetensors"
KINDS = {
    "bi": ModelKind.BI_ENCODER,
    "decoder-bi": ModelKind.BI_ENCODER,
    "t5": ModelKind.BI_ENCODER,
    "sparse": ModelKind.SPARSE_ENCODER,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A checkpoint of every kind whose weights are whole."""
    directory = tmp_path_factory.mktemp("whole")
    return {
        "bi": checkpoints.save_bi_encoder(directory / "bi", dense=8),
        "t5": embedders.save_instructor(directory / "t5", prompts={"query": "find: "}),
        "decoder-bi": embedders.save_decoder_bi_encoder(directory / "decoder-bi"),
        "sparse": embedders.save_sparse_encoder(directory / "sparse"),
        "cross": checkpoints.save_cross_encoder(directory / "cross"),
        "modular": checkpoints.save_modular_cross_encoder(directory / "modular"),
        "decoder": checkpoints.save_decoder_reranker(directory / "decoder"),
        "classifier": checkpoints.save_decoder_classifier(directory / "classifier"),
    }


@pytest.fixture
def copy(plain: Mapping[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(plain[kind], tmp_path / kind))


def edit(file: Path, change: Callable[[Tensors], Tensors]) -> None:
    from safetensors.torch import load_file, save_file

    changed = {name: tensor.clone().contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(changed, file, metadata={"format": "pt"})


def without(*endings: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith(endings)}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def loaded(directory: Path, kind: ModelKind | None = None) -> Any:
    with quiet_libraries():
        return load_reference(directory, kind or KINDS.get(directory.name, ModelKind.CROSS_ENCODER))


def refused(directory: Path, reason: str, kind: ModelKind | None = None) -> None:
    with pytest.raises(WeightsInvalid, match=reason):
        loaded(directory, kind)


@pytest.mark.parametrize(
    ("kind", "endings", "named"),
    [
        ("bi", ("layer.1.attention.self.query.weight",), "1 tensor is missing .*encoder.layer.1.attention.self.q"),
        ("bi", ("embeddings.word_embeddings.weight",), "1 tensor is missing .*embeddings.word_embeddings.weight"),
        ("t5", ("shared.weight",), "2 tensors are missing .*encoder.embed_tokens.weight, shared.weight"),
        ("decoder-bi", ("norm.weight",), ".* tensors are missing .*layers.0.input_layernorm.weight"),
        ("sparse", ("predictions.bias",), "2 tensors are missing .*cls.predictions.bias"),
        ("sparse", ("transform.dense.weight",), "1 tensor is missing .*cls.predictions.transform.dense.weight"),
        ("cross", ("classifier.weight", "classifier.bias"), "2 tensors are missing .*classifier.bias, classifier.w"),
        ("cross", ("pooler.dense.bias",), "1 tensor is missing .*bert.pooler.dense.bias"),
        ("modular", ("0.output.LayerNorm.bias",), "1 tensor is missing .*encoder.layer.0.output"),
        ("decoder", ("lm_head.weight",), "1 tensor is missing .*lm_head.weight"),
        ("decoder", ("embed_tokens.weight",), "1 tensor is missing .*model.embed_tokens.weight"),
        ("classifier", ("score.weight",), "1 tensor is missing .*score.weight"),
    ],
)
def test_what_is_missing_is_named_and_not_made_up(
    kind: str, endings: tuple[str, ...], named: str, copy: Callable[[str], Path]
) -> None:
    directory = copy(kind)
    edit(directory / FILE, without(*endings))
    refused(directory, f"{kind}: {named}.* would be random numbers; save the trained checkpoint again")


@pytest.mark.parametrize("kind", ["bi", "t5", "sparse", "cross", "decoder", "classifier"])
def test_a_prefix_that_training_left_is_named(kind: str, copy: Callable[[str], Path]) -> None:
    directory = copy(kind)
    edit(directory / FILE, prefixed("module."))
    refused(directory, r"the names in the file carry the prefix 'module\.', which distributed training leaves: remove")


def test_any_other_prefix_is_named_too(copy: Callable[[str], Path]) -> None:
    directory = copy("cross")
    edit(directory / FILE, prefixed("_orig_mod."))
    refused(directory, r"41 tensors are missing .*38 more\); the names in the file carry the prefix '_orig_mod\.': rem")


@pytest.mark.parametrize("kind", ["bi", "modular"])
def test_a_pooler_that_no_pooling_reads_may_be_missing_or_damaged(
    kind: str, copy: Callable[[str], Path], plain: Mapping[str, Path]
) -> None:
    directory = copy(kind)
    edit(directory / FILE, without("pooler.dense.weight"))
    edit(directory / FILE, lambda tensors: tensors | {"pooler.dense.bias": tensors["pooler.dense.bias"] * np.nan})
    inputs: list[Any] = list(checkpoints.TEXTS if kind == "bi" else checkpoints.PAIRS)
    results = []
    for checkpoint in (plain[kind], directory):
        model = loaded(checkpoint)
        results.append(model.encode(inputs) if kind == "bi" else model.predict(inputs))
    np.testing.assert_array_equal(*results)


def test_the_head_of_another_task_is_left_out(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

    tokenizer = architectures.tokenizer("roberta")
    config = architectures.config("roberta", tokenizer, layers=1)
    for family in (AutoModelForMaskedLM, AutoModelForTokenClassification):
        directory = tmp_path / family.__name__
        family.from_config(config).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        loaded(directory, ModelKind.BI_ENCODER)
        refused(directory, "4 tensors are missing from its weights .classifier.dense.bias", ModelKind.CROSS_ENCODER)


def test_tied_weights_need_one_name(copy: Callable[[str], Path], plain: Mapping[str, Path]) -> None:
    from safetensors import safe_open

    with safe_open(plain["sparse"] / FILE, framework="np") as tensors:
        assert "cls.predictions.decoder.weight" not in tensors.keys()  # noqa: SIM118 - not a mapping
    loaded(plain["sparse"])
    directory = copy("sparse")
    checkpoints.edit_json(directory / "config.json", tie_word_embeddings=False)
    refused(directory, "1 tensor is missing from its weights .cls.predictions.decoder.weight")


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("sparse", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("decoder", "model.embed_tokens.weight", "nothing.weight"),
    ],
)
def test_the_wrong_end_of_a_tie_is_refused(kind: str, old: str, new: str, copy: Callable[[str], Path]) -> None:
    directory = copy(kind)
    checkpoints.edit_json(directory / "config.json", tie_word_embeddings=True)
    edit(directory / FILE, renamed(old, new))
    refused(directory, f"{kind}: 2 tensors have no numbers .{old}, .*the other one of two tied names")


def test_another_shape_is_named(copy: Callable[[str], Path]) -> None:
    directory = copy("cross")
    checkpoints.edit_json(directory / "config.json", id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    refused(directory, "2 tensors have another shape in its weights than in config.json .classifier.bias, classifier.w")


def test_a_checkpoint_cannot_allow_another_shape(copy: Callable[[str], Path]) -> None:
    directory = copy("bi")
    word = "embeddings.word_embeddings.weight"
    edit(directory / FILE, lambda tensors: tensors | {word: tensors[word][1:]})
    checkpoints.edit_json(directory / "sentence_bert_config.json", model_args={"ignore_mismatched_sizes": True})
    refused(directory, f"1 tensor has another shape in its weights than in config.json .{word}")


def test_layers_that_config_json_leaves_out_are_named(copy: Callable[[str], Path]) -> None:
    directory = copy("cross")
    checkpoints.edit_json(directory / "config.json", num_hidden_layers=1)
    refused(directory, "no place for 16 tensors of its weights .bert.encoder.layer.1.* and 13 more., which would be")
    checkpoints.edit_json(directory / "config.json", num_hidden_layers=3)
    refused(directory, "16 tensors are missing from its weights .bert.encoder.layer.2")


def test_names_and_buffers_of_earlier_versions_are_read(copy: Callable[[str], Path], plain: Mapping[str, Path]) -> None:
    import torch

    directory = copy("cross")
    edit(directory / FILE, renamed("LayerNorm.weight", "LayerNorm.gamma"))
    edit(directory / FILE, renamed("LayerNorm.bias", "LayerNorm.beta"))
    edit(directory / FILE, lambda tensors: tensors | {"bert.embeddings.position_ids": torch.arange(64)[None]})
    scores = [loaded(checkpoint).predict(list(checkpoints.PAIRS)) for checkpoint in (plain["cross"], directory)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(value: float, copy: Callable[[str], Path]) -> None:
    directory = copy("cross")
    word = "bert.embeddings.word_embeddings.weight"

    def damage(tensors: Tensors) -> Tensors:
        tensors[word][7, 3] = value
        return tensors

    edit(directory / FILE, damage)
    refused(directory, f"cross: 1 tensor with NaN or infinite numbers .{word}.; the file is damaged")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("bias"), 'Missing key.* "linear.bias"'),
        (prefixed("module."), 'Unexpected key.*"module.linear.bias"'),
        (lambda tensors: tensors | {"linear.bias": tensors["linear.bias"][1:]}, "size mismatch for linear.bias"),
        (lambda tensors: tensors | {"linear.bias": tensors["linear.bias"] * np.nan}, "NaN or infinite .*2.linear.bias"),
    ],
)
def test_weights_of_a_module_are_its_own(
    change: Callable[[Tensors], Tensors], reason: str, copy: Callable[[str], Path]
) -> None:
    directory = copy("bi")
    edit(directory / "2_Dense" / FILE, change)
    with pytest.raises(CheckpointUnsupported, match=reason):
        loaded(directory)


@pytest.fixture
def shards(copy: Callable[[str], Path]) -> Path:
    """A cross-encoder in several files."""
    from transformers import AutoModelForSequenceClassification

    directory = copy("cross")
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    (directory / FILE).unlink()
    model.save_pretrained(directory, max_shard_size="20KB")
    loaded(directory)
    return directory


def test_a_shard_that_is_missing_is_named(shards: Path) -> None:
    file = sorted(shards.glob("*.safetensors"))[2]
    file.unlink()
    with pytest.raises(CheckpointUnsupported, match=file.name):
        loaded(shards)


def test_an_index_is_not_believed(shards: Path) -> None:
    index = shards / f"{FILE}.index.json"
    content = json.loads(index.read_text())
    head = content["weight_map"].pop("classifier.weight")
    index.write_text(json.dumps(content))
    refused(shards, "1 tensor is missing from its weights .classifier.weight")
    content["weight_map"]["classifier.weight"] = head
    index.write_text(json.dumps(content))
    edit(shards / head, without("classifier.weight"))
    refused(shards, "cross: 1 tensor has no numbers .classifier.weight.: a file that the index names")


@pytest.mark.parametrize("parity", [True, False])
def test_no_package_is_made_of_random_numbers(parity: bool, copy: Callable[[str], Path], tmp_path: Path) -> None:
    directory = copy("bi")
    edit(directory / FILE, without("layer.1.attention.self.query.weight"))
    config = ExportConfig(checkpoint=str(directory), output=tmp_path / "package", parity=parity, tune=False)
    with pytest.raises(WeightsInvalid, match="bi: 1 tensor is missing"):
        export_checkpoint(config)
    assert not config.output.exists()


@pytest.fixture
def over(plain: Mapping[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """An adapter and its base, to be damaged."""
    base = Path(shutil.copytree(plain["cross"], tmp_path / "base"))
    return checkpoints.save_adapter(tmp_path / "adapter", base), base


def exported(directory: Path, output: Path) -> None:
    export_checkpoint(
        ExportConfig(checkpoint=str(directory), output=output, parity=False, tune=False, precisions=("fp32",))
    )


QUERY = "base_model.model.bert.encoder.layer.1.attention.self.query"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without(f"{QUERY}.lora_B.weight"), f"layers that the adapter's file lacks: .*{QUERY}.lora_B.weight"),
        (renamed("layer.1", "layer.9"), r"no place for the adapter's .*layer\.9.* and 1 more"),
        (
            lambda tensors: tensors | {f"{QUERY.replace('1', '9')}.lora_A.weight": tensors[f"{QUERY}.lora_A.weight"]},
            r"no place for the adapter's .*layer\.9",
        ),
    ],
)
def test_an_adapter_fits_its_base_whole(
    change: Callable[[Tensors], Tensors], reason: str, over: tuple[Path, Path], tmp_path: Path
) -> None:
    edit(over[0] / "adapter_model.safetensors", change)
    with pytest.raises(CheckpointUnsupported, match=reason):
        exported(over[0], tmp_path / "package")


def test_the_base_of_an_adapter_is_whole(over: tuple[Path, Path], tmp_path: Path) -> None:
    edit(over[1] / FILE, without("classifier.weight", "classifier.bias"))  # which the adapter brings
    exported(over[0], tmp_path / "package")
    edit(over[1] / FILE, without("layer.1.attention.self.query.weight"))
    with pytest.raises(WeightsInvalid, match=r"bert\.encoder\.layer\.1\.attention\.self\.query"):
        exported(over[0], tmp_path / "other")
