"""What is said of rerankers that are opened, and which of them are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.config import AskedScore
from pairwire.export.errors import CheckpointUnsupported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.heads import Activation
from pairwire.server.errors import ConfigInvalid
from tests import checkpoints, decoders

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"


def opened(directory: Path, *, max_length: int | None = None) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory, max_length=max_length)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one checkpoint of each form."""
    directory = tmp_path_factory.mktemp("rerankers")
    checkpoints.save_decoder_reranker(directory / "plain", layers=1)
    checkpoints.save_decoder_reranker(directory / "modules", modules=True, layers=1)
    checkpoints.save_decoder_classifier(directory / "classifier", layers=1)
    checkpoints.save_modular_cross_encoder(directory / "modular", labels=2, layers=1)
    return directory


@pytest.fixture
def editable(built: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "editable"))


def test_language_model_with_the_answers_yes_and_no_is_a_cross_encoder_of_one_label(built: Path) -> None:
    checkpoint = opened(built / "plain")
    assert (checkpoint.kind, checkpoint.architecture) == (ModelKind.CROSS_ENCODER, "qwen3")
    assert (list(checkpoint.labels), checkpoint.activation) == (["LABEL_0"], Activation.SIGMOID)
    assert checkpoint.rules.max_length == decoders.POSITIONS
    assert checkpoint.rules.template is not None


def test_labels_of_modules_are_those_of_the_last_dense(built: Path) -> None:
    checkpoint = opened(built / "modular")
    assert (list(checkpoint.labels), checkpoint.activation) == (["LABEL_0", "LABEL_1"], Activation.IDENTITY)
    assert checkpoint.rules.template is None


def test_left_padding_of_a_decoder_is_no_reason_to_refuse_it(editable: Path) -> None:
    assert opened(editable / "plain").reference.tokenizer.padding_side == "left"
    checkpoints.edit_json(editable / "modular" / TOKENIZER, padding_side="left")
    with pytest.raises(CheckpointUnsupported, match="padding on the left"):
        opened(editable / "modular")


@pytest.mark.parametrize(
    ("which", "file", "changes", "reason"),
    [
        ("plain", CONFIG, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "embeddings of type dynamic"),
        ("plain", TOKENIZER, {"truncation_side": "left"}, "truncation_side left"),
        ("plain", TOKENIZER, {"pad_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}, "no padding token"),
        ("classifier", CONFIG, {"pad_token_id": None}, "pad_token_id is None, the tokenizer pads with 0"),
        ("classifier", CONFIG, {"pad_token_id": 5}, "pad_token_id is 5, the tokenizer pads with 0"),
        ("modules", "1_LogitScore/config.json", {"false_token_id": 10**6}, "no two answers of its vocabulary"),
        ("modular", "1_Pooling/config.json", {"include_prompt": False}, "leaves prompts out"),
        ("modular", "3_Dense/config.json", {"module_output_name": "sentence_embedding"}, "gives the scores at the end"),
    ],
)
def test_what_would_not_be_exact_is_refused(
    which: str, file: str, changes: dict[str, object], reason: str, editable: Path
) -> None:
    opened(editable / which)
    assert (editable / which / file).is_file()
    checkpoints.edit_json(editable / which / file, **changes)
    with pytest.raises(CheckpointUnsupported, match=reason):
        opened(editable / which)


def test_decoder_with_a_head_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = decoders.tokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path / "neox")
    tokenizer.save_pretrained(tmp_path / "neox")
    with pytest.raises(CheckpointUnsupported, match="GPTNeoXForCausalLM has no lm_head"):
        opened(tmp_path / "neox")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sliding_window": 48}, "a decoder of type phi3 with a sliding window; which of its layers have it is known"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "with layers of chunked_attention"),
    ],
)
def test_attention_that_short_texts_would_not_show_is_refused(changes: dict[str, object], reason: str) -> None:
    from types import SimpleNamespace

    from pairwire.export.checkpoint.decoders import check

    config = SimpleNamespace(**{"model_type": "phi3", "rope_scaling": None} | changes)
    with pytest.raises(CheckpointUnsupported, match=reason):
        check(SimpleNamespace(config=config))


def test_language_model_that_cannot_carry_a_pair_is_refused(editable: Path) -> None:
    (editable / "plain" / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(CheckpointUnsupported, match="cannot carry a query and a document"):
        opened(editable / "plain")


def test_decoder_of_long_rows_must_be_told_how_many_tokens(editable: Path) -> None:
    checkpoints.edit_json(editable / "plain" / CONFIG, max_position_embeddings=40960)
    checkpoints.edit_json(editable / "plain" / TOKENIZER, model_max_length=131072)
    with pytest.raises(CheckpointUnsupported, match=r"positions end at 40960 tokens.*--max-length"):
        opened(editable / "plain")
    assert opened(editable / "plain", max_length=512).rules.max_length == 512


def test_module_of_another_kind_is_refused_by_name(built: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    with quiet_libraries():
        first, *rest = list(CrossEncoder(str(built / "modular"), device="cpu"))
        model = CrossEncoder(modules=[first, WeightedLayerPooling(32, num_hidden_layers=1), *rest], device="cpu")
        model.save_pretrained(str(tmp_path / "weighted"))
    with pytest.raises(CheckpointUnsupported, match="a module WeightedLayerPooling"):
        opened(tmp_path / "weighted")


def test_the_score_of_one_token_can_be_scaled_by_the_checkpoint_and_by_who_exports_it(tmp_path: Path) -> None:
    directory = checkpoints.save_decoder_reranker(
        tmp_path / "zerank", modules=True, false_token=None, scale=(0.5, 1.0), identity=True, layers=1
    )
    found = opened(directory)
    assert (found.head.activation, found.head.scale, found.head.bias) == (Activation.IDENTITY, 0.5, 1.0)
    asked = AskedScore(activation=Activation.SIGMOID, scale=0.2, bias=-1.0)
    source = find_source(str(directory))
    head = open_checkpoint(source, source.directory, asked=asked).head
    assert (head.activation, head.scale) == (Activation.SIGMOID, pytest.approx(0.1))
    assert head.bias == pytest.approx(0.2 * 1.0 - 1.0)


def test_a_bare_logit_of_one_token_is_worth_a_warning(tmp_path: Path) -> None:
    directory = checkpoints.save_decoder_reranker(
        tmp_path / "zerank", modules=True, false_token=None, identity=True, layers=1
    )
    (said,) = opened(directory).warnings
    assert "--activation sigmoid --score-scale 0.2" in said


def test_a_score_can_be_asked_for_of_pairs_alone(tmp_path: Path) -> None:
    source = find_source(str(checkpoints.save_bi_encoder(tmp_path / "bi", layers=1)))
    with pytest.raises(ConfigInvalid, match="about scores of pairs, and this is a bi-encoder"):
        open_checkpoint(source, source.directory, asked=AskedScore(scale=0.2))


def test_an_activation_that_makes_every_score_1_is_refused(built: Path) -> None:
    source = find_source(str(built / "plain"))
    with quiet_libraries(), pytest.raises(ConfigInvalid, match="softmax over one label makes every score 1"):
        open_checkpoint(source, source.directory, asked=AskedScore(activation=Activation.SOFTMAX))
