from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pairwire.export.checkpoint.checkpoint import Checkpoint, detect_kind, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.errors import CheckpointUnsupported, ConsentMissing
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.heads import Activation
from tests import checkpoints, embedders

IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
SOFTMAX = "torch.nn.modules.activation.Softmax"


def opened(directory: Path, *, kind: ModelKind | None = None, max_length: int | None = None) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory, kind=kind, max_length=max_length)


def content(checkpoint: Checkpoint, text: str) -> list[int]:
    """Ids of a text as the server would assemble them."""
    encoder = checkpoint.text_encoder()
    rows = encoder.encode_texts([text])
    ids: list[int] = encoder.assemble([(rows, 0)], int(rows.lengths[0])).input_ids[0].tolist()
    return ids


@pytest.fixture
def editable(cross_encoder_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the cross-encoder that a test may change."""
    return Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "editable"))


@pytest.fixture
def saved_by_the_library(cross_encoder_checkpoint: Path, tmp_path: Path) -> Path:
    """The cross-encoder as sentence-transformers saves it: with modules.json and config_sentence_transformers.json."""
    from sentence_transformers import CrossEncoder

    with quiet_libraries():
        CrossEncoder(str(cross_encoder_checkpoint), device="cpu").save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.fixture
def editable_bi_encoder(bi_encoder_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bi_encoder_checkpoint, tmp_path / "editable"))


def test_one_label_cross_encoder_is_recognised(cross_encoder_checkpoint: Path) -> None:
    checkpoint = opened(cross_encoder_checkpoint)
    assert checkpoint.kind is ModelKind.CROSS_ENCODER
    assert checkpoint.architecture == "bert"
    assert list(checkpoint.labels) == ["LABEL_0"]
    assert checkpoint.activation is Activation.SIGMOID
    assert checkpoint.rules.max_length == 128


def test_labels_keep_their_names_and_order(three_label_checkpoint: Path) -> None:
    checkpoint = opened(three_label_checkpoint)
    assert list(checkpoint.labels) == ["contradiction", "entailment", "neutral"]
    assert checkpoint.activation is Activation.IDENTITY


def test_bi_encoder_is_recognised_with_its_prompts(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(
        tmp_path / "bi", prompts={"query": "query: ", "passage": "passage: "}, default_prompt_name="passage"
    )
    checkpoint = opened(directory)
    assert checkpoint.kind is ModelKind.BI_ENCODER
    assert (checkpoint.dimensions, list(checkpoint.pooling), checkpoint.normalized) == (32, ["mean"], True)
    assert checkpoint.prompts == {"query": "query: ", "passage": "passage: ", "document": ""}
    assert checkpoint.default_prompt == "passage: "
    assert checkpoint.similarity == "cosine"


def test_dense_layer_gives_the_dimensions(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "bi", pooling=["cls", "mean"], dense=24, normalize=False)
    checkpoint = opened(directory)
    assert (checkpoint.dimensions, list(checkpoint.pooling), checkpoint.normalized) == (24, ["cls", "mean"], False)


@pytest.mark.parametrize(
    ("current", "oldest", "expected"),
    [
        (None, None, Activation.SIGMOID),
        (None, IDENTITY, Activation.IDENTITY),
        (IDENTITY, SIGMOID, Activation.IDENTITY),
        (SOFTMAX, IDENTITY, Activation.SOFTMAX),
    ],
)
def test_activation_in_config_json_follows_the_precedence_of_sentence_transformers(
    current: str | None, oldest: str | None, expected: Activation, tmp_path: Path
) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "ce", activation=current, legacy_activation=oldest)
    assert opened(directory).activation is expected


@pytest.mark.parametrize(("named", "expected"), [(IDENTITY, Activation.IDENTITY), (SOFTMAX, Activation.SOFTMAX)])
def test_activation_beside_modules_json_comes_first(
    named: str, expected: Activation, saved_by_the_library: Path
) -> None:
    checkpoints.edit_json(saved_by_the_library / "config_sentence_transformers.json", activation_fn=named)
    checkpoints.edit_json(saved_by_the_library / "config.json", sentence_transformers={"activation_fn": SIGMOID})
    assert opened(saved_by_the_library).activation is expected


@pytest.mark.parametrize("name", ["torch.nn.modules.activation.Tanh", "my_package.Calibrated"])
def test_other_activation_is_refused_by_name(name: str, tmp_path: Path) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "ce", activation=name)
    with pytest.raises(CheckpointUnsupported, match=name.rpartition(".")[2]):
        opened(directory)


@pytest.mark.parametrize("architecture", ["roberta", "mpnet", "camembert"])
def test_roberta_and_its_kin_read_two_tokens_less_than_they_have_positions(architecture: str, tmp_path: Path) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "model", architecture=architecture)
    checkpoints.edit_json(directory / "tokenizer_config.json", model_max_length=10**30)
    assert opened(directory).rules.max_length == 128  # of 130 positions


@pytest.mark.parametrize("architecture", ["deberta-v3", "modernbert"])
def test_model_without_a_table_of_positions_reads_what_the_library_lets_it(architecture: str, tmp_path: Path) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "model", architecture=architecture)
    checkpoints.edit_json(directory / "tokenizer_config.json", model_max_length=10**30)
    checkpoints.edit_json(directory / "config.json", max_position_embeddings=100)
    checkpoint = opened(directory)
    assert checkpoint.rules.max_length == 100
    with pytest.raises(CheckpointUnsupported, match="max-length 101 is more than the checkpoint reads: at most 100"):
        opened(directory, max_length=101)


@pytest.mark.parametrize(
    ("labels", "problem", "named", "expected"),
    [
        (3, "multi_label_classification", None, Activation.SIGMOID),
        (3, "single_label_classification", None, Activation.IDENTITY),
        (3, None, None, Activation.IDENTITY),
        (3, "multi_label_classification", IDENTITY, Activation.IDENTITY),
        (3, "multi_label_classification", SOFTMAX, Activation.SOFTMAX),
        (1, "multi_label_classification", None, Activation.SIGMOID),
        (1, "multi_label_classification", IDENTITY, Activation.IDENTITY),
    ],
)
def test_labels_of_a_multi_label_head_are_questions_of_their_own_unless_an_activation_is_named(
    labels: int, problem: str | None, named: str | None, expected: Activation, tmp_path: Path
) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "ce", labels=labels, problem_type=problem, activation=named)
    assert opened(directory).activation is expected


def test_smaller_max_length_is_taken_by_both_sides(cross_encoder_checkpoint: Path) -> None:
    checkpoint = opened(cross_encoder_checkpoint, max_length=32)
    assert checkpoint.rules.max_length == 32
    assert checkpoint.reference.max_seq_length == 32


def test_larger_max_length_is_refused_with_the_limit(cross_encoder_checkpoint: Path) -> None:
    with pytest.raises(CheckpointUnsupported, match="max-length 4096 is more than the checkpoint reads: at most 128"):
        opened(cross_encoder_checkpoint, max_length=4096)


def test_shipped_tokenizer_is_the_one_that_transformers_configures(editable: Path) -> None:
    checkpoints.edit_json(editable / "tokenizer_config.json", do_lower_case=False)
    checkpoint = opened(editable)
    assert content(checkpoint, "The Dog") == checkpoint.reference.tokenizer("The Dog")["input_ids"]
    assert content(checkpoint, "The Dog") != content(checkpoint, "the dog")


def test_truncation_side_is_kept(editable: Path) -> None:
    checkpoints.edit_json(editable / "tokenizer_config.json", truncation_side="left")
    assert opened(editable).rules.truncate_left


def test_cross_encoder_saved_by_the_library_is_not_taken_for_a_bi_encoder(saved_by_the_library: Path) -> None:
    assert (saved_by_the_library / "modules.json").is_file()
    checkpoint = opened(saved_by_the_library)
    assert checkpoint.kind is ModelKind.CROSS_ENCODER
    assert checkpoint.activation is Activation.SIGMOID


def test_cross_encoder_of_modules_without_scores_is_refused(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(bi_encoder_checkpoint, tmp_path / "modular"))
    checkpoints.edit_json(directory / "config_sentence_transformers.json", model_type="CrossEncoder")
    with pytest.raises(CheckpointUnsupported, match="expected a Dense that gives the scores at the end"):
        opened(directory)


def test_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnsupported, match=r"neither config\.json nor modules\.json"):
        detect_kind(tmp_path)


def test_encoder_without_a_head_needs_the_kind(bi_encoder_checkpoint: Path) -> None:
    plain = bi_encoder_checkpoint.with_name(bi_encoder_checkpoint.name + "-transformer")
    with pytest.raises(CheckpointUnsupported, match="--kind bi-encoder"):
        detect_kind(plain)
    assert detect_kind(plain, ModelKind.BI_ENCODER) is ModelKind.BI_ENCODER
    assert list(opened(plain, kind=ModelKind.BI_ENCODER).pooling) == ["mean"]


def test_checkpoint_without_architectures_may_be_either(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    directory = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "nameless"))
    checkpoints.edit_json(directory / "config.json", architectures=None)
    with pytest.raises(CheckpointUnsupported, match=r"--kind bi-encoder .*, --kind cross-encoder"):
        detect_kind(directory)
    pairs = [list(pair) for pair in checkpoints.PAIRS]
    scores = opened(directory, kind=ModelKind.CROSS_ENCODER).reference.predict(pairs)
    np.testing.assert_allclose(scores, CrossEncoder(str(cross_encoder_checkpoint), device="cpu").predict(pairs))


def test_empty_list_of_architectures_is_a_sentence(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "nameless"))
    checkpoints.edit_json(directory / "config.json", architectures=[])
    with pytest.raises(CheckpointUnsupported, match=r"config\.json: architectures is an empty list"):
        opened(directory, kind=ModelKind.CROSS_ENCODER)


def test_decoder_without_a_chat_template_is_served_with_a_warning(tmp_path: Path) -> None:
    with_one = opened(checkpoints.save_decoder_reranker(tmp_path / "with"), max_length=256)
    without = opened(checkpoints.save_decoder_reranker(tmp_path / "without", template=None), max_length=256)
    assert list(with_one.warnings) == []
    assert ["a decoder without a chat template" in warning for warning in without.warnings] == [True]


def test_bi_encoder_cannot_be_made_a_cross_encoder(bi_encoder_checkpoint: Path) -> None:
    with pytest.raises(CheckpointUnsupported, match="no classification head"):
        detect_kind(bi_encoder_checkpoint, ModelKind.CROSS_ENCODER)


def test_language_model_without_modules_is_a_cross_encoder_unless_another_kind_is_given(editable: Path) -> None:
    checkpoints.edit_json(editable / "config.json", architectures=["Qwen3ForCausalLM"])
    assert detect_kind(editable) is ModelKind.CROSS_ENCODER
    assert detect_kind(editable, ModelKind.BI_ENCODER) is ModelKind.BI_ENCODER


def test_sparse_encoder_is_recognised(editable: Path) -> None:
    checkpoints.edit_json(editable / "config_sentence_transformers.json", model_type="SparseEncoder")
    assert detect_kind(editable) is ModelKind.SPARSE_ENCODER
    with pytest.raises(CheckpointUnsupported, match="asked for a cross-encoder, but it is a sparse encoder"):
        detect_kind(editable, ModelKind.CROSS_ENCODER)


def test_damaged_config_is_named(editable: Path) -> None:
    (editable / "config.json").write_text("{")
    with pytest.raises(CheckpointUnsupported, match=r"config\.json: not JSON"):
        detect_kind(editable)


def test_checkpoint_without_weights_is_refused_with_the_librarys_reason(editable: Path) -> None:
    (editable / "model.safetensors").unlink()
    with pytest.raises(CheckpointUnsupported, match="sentence-transformers cannot load it"):
        opened(editable)


def test_left_padding_is_refused(editable: Path) -> None:
    checkpoints.edit_json(editable / "tokenizer_config.json", padding_side="left")
    with pytest.raises(CheckpointUnsupported, match="padding on the left"):
        opened(editable)


def test_pooling_without_the_prompt_is_a_rule_for_text(editable_bi_encoder: Path) -> None:
    assert not opened(editable_bi_encoder).rules.prompt_excluded
    checkpoints.edit_json(editable_bi_encoder / "1_Pooling" / "config.json", include_prompt=False)
    assert opened(editable_bi_encoder).rules.prompt_excluded


def test_vectors_that_are_cut_are_not_of_unit_length_and_have_all_dimensions(editable_bi_encoder: Path) -> None:
    checkpoints.edit_json(editable_bi_encoder / "config_sentence_transformers.json", truncate_dim=8)
    checkpoint = opened(editable_bi_encoder)
    assert (checkpoint.dimensions, checkpoint.default_dimensions, checkpoint.normalized) == (32, 8, False)


def test_a_module_that_is_not_exported_is_named(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import CNN, Dense, WordWeights

    for name, around, reason in (
        ("cnn", {"before": [CNN(32, 32)]}, "module CNN before Pooling is not exported"),
        ("weights", {"before": [WordWeights(["a"], {"a": 1.0})]}, "module WordWeights before Pooling is not exported"),
        (
            "dense",
            {"after": [Dense(32, 8, module_output_name="other")]},
            "a Dense module from sentence_embedding to other; expected sentence_embedding to sentence_embedding",
        ),
    ):
        directory = checkpoints.save_bi_encoder(tmp_path / name, normalize=False, **around)
        with pytest.raises(CheckpointUnsupported, match=reason):
            opened(directory)


def test_an_activation_that_would_run_the_checkpoints_own_code_is_not_replaced(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "bi", dense=8)
    checkpoints.edit_json(directory / "2_Dense" / "config.json", activation_function="my_package.Swish")
    with pytest.raises(
        ConsentMissing, match=r"2_Dense/config\.json: activation_function names my_package\.Swish\. --trust-remote-code"
    ):
        opened(directory)


def test_weighted_means_of_rows_that_are_padded_on_the_left_are_refused(tmp_path: Path) -> None:
    left = embedders.save_decoder_bi_encoder(tmp_path / "left", pooling="weightedmean")
    with pytest.raises(CheckpointUnsupported, match="weightedmean pooling of rows that are padded on the left"):
        opened(left)
    right = embedders.save_decoder_bi_encoder(tmp_path / "right", pooling="weightedmean", padding_side="right")
    assert list(opened(right).pooling) == ["weightedmean"]


def test_a_decoder_whose_texts_go_through_a_chat_template_is_refused(tmp_path: Path) -> None:
    directory = embedders.save_decoder_bi_encoder(tmp_path / "chat")
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    checkpoints.edit_json(
        directory / "sentence_bert_config.json",
        modality_config={"text": forward, "message": {**forward, "format": "flat"}},
        module_output_name="token_embeddings",
    )
    with pytest.raises(CheckpointUnsupported, match="it reads text, message; expected plain text only"):
        opened(directory)


def test_slow_tokenizer_is_refused(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    # CANINE reads characters; its tokenizer exists only in Python.
    directory = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "slow"))
    checkpoints.edit_json(directory / "tokenizer_config.json", tokenizer_class="CanineTokenizer")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(CheckpointUnsupported, match=r"CanineTokenizer is a slow \(Python\) tokenizer"):
        opened(directory)
