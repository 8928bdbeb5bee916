"""Tokens that a tokenizer has and the embeddings have not: told, or refused where nothing could be served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.errors import CheckpointUnsupported, DataInvalid
from pairwire.export.progress import Event, Warned, quiet_libraries
from pairwire.export.texts import BUILT_IN, Texts, calibration_texts
from pairwire.export.vocabulary import check_vocabulary, servable
from pairwire.server.engine.kinds import ModelKind
from tests import checkpoints


def _with(directory: Path, *tokens: str, **special: str) -> Path:
    """The checkpoint with tokens that its embeddings know nothing of."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens(list(tokens))
    if special:
        tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(directory)
    return directory


def _open(directory: Path) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory)


def test_every_token_has_an_embedding(cross_encoder_checkpoint: Path) -> None:
    checkpoint = _open(cross_encoder_checkpoint)
    assert check_vocabulary(checkpoint) == ""
    texts = calibration_texts(ModelKind.CROSS_ENCODER)
    assert servable(checkpoint, texts) is texts


def test_an_export_tells_which_tokens_have_no_embedding(tmp_path: Path) -> None:
    events: list[Event] = []
    directory = _with(checkpoints.save_cross_encoder(tmp_path / "model"), "[DOC]", "[Q]")
    config = ExportConfig(
        tune=False, checkpoint=str(directory), output=tmp_path / "package", precisions=("fp32",), parity=False
    )
    export_checkpoint(config, events.append)
    (told,) = [event.text for event in events if isinstance(event, Warned)]
    rows = json.loads((directory / "config.json").read_text())["vocab_size"]
    assert f"'[DOC]' ({rows}), '[Q]' ({rows + 1}) have no embedding, which ends at {rows - 1}" in told
    assert "resize_token_embeddings" in told


@pytest.mark.parametrize(
    ("special", "where"),
    [
        ({"pad_token": "[FILL]"}, "padding has the token .*FILL"),
        ({"unk_token": "[WHAT]"}, "the token .*WHAT.* stands for every word that the tokenizer does not know"),
    ],
)
def test_a_token_of_every_row_without_an_embedding_is_refused(
    tmp_path: Path, special: dict[str, str], where: str
) -> None:
    checkpoint = _open(_with(checkpoints.save_cross_encoder(tmp_path / "model"), **special))
    with pytest.raises(CheckpointUnsupported, match=rf"{where}.*resize_token_embeddings"):
        check_vocabulary(checkpoint)


def test_a_token_around_every_text_without_an_embedding_is_refused(tmp_path: Path) -> None:
    directory = _with(checkpoints.save_cross_encoder(tmp_path / "model"), "[NEXT]")
    content = json.loads((directory / "tokenizer.json").read_text())
    next_id = next(token["id"] for token in content["added_tokens"] if token["content"] == "[NEXT]")
    content["post_processor"]["special_tokens"]["[SEP]"] |= {"ids": [next_id], "tokens": ["[NEXT]"]}
    (directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointUnsupported, match=r"what the tokenizer puts around a text has the token .*NEXT"):
        check_vocabulary(_open(directory))


def test_a_mask_without_an_embedding_is_only_told(tmp_path: Path) -> None:
    checkpoint = _open(_with(checkpoints.save_cross_encoder(tmp_path / "model"), mask_token="[HIDE]"))
    assert "'[HIDE]'" in check_vocabulary(checkpoint)


@pytest.mark.parametrize("default", ["query", None])
def test_a_prompt_with_such_a_token_is_refused(tmp_path: Path, default: str | None) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "model", prompts={"query": "[Q] "}, default_prompt_name=default)
    checkpoint = _open(_with(directory, "[Q]"))
    with pytest.raises(CheckpointUnsupported, match=r"prompt 'query' has the token '\[Q\]' \(id \d+\)"):
        check_vocabulary(checkpoint)


def test_a_chat_template_with_such_a_token_is_refused(tmp_path: Path) -> None:
    directory = checkpoints.save_decoder_reranker(tmp_path / "model")
    checkpoint = _open(_with(directory, "Document"))
    with pytest.raises(CheckpointUnsupported, match="the template for pairs has the token 'Document'"):
        check_vocabulary(checkpoint)


def test_a_token_type_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "model")
    checkpoint = _open(directory)
    import torch

    checkpoint.reference[0].model.bert.embeddings.token_type_embeddings = torch.nn.Embedding(1, 32)
    with pytest.raises(CheckpointUnsupported, match="type 1, and the model has 1 token types"):
        check_vocabulary(checkpoint)


@pytest.mark.parametrize("option", ["calibration_data", "parity_data"])
@pytest.mark.parametrize("text", ["a [DOC] b", "[DOC]"])
def test_the_users_data_with_such_a_token_is_a_sentence(tmp_path: Path, option: str, text: str) -> None:
    directory = _with(checkpoints.save_cross_encoder(tmp_path / "model"), "[DOC]")
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(json.dumps(pair) for pair in [["a", "b"], ["c", text]]))
    named: dict[str, Any] = {option: data}
    config = ExportConfig(tune=False, checkpoint=str(directory), output=tmp_path / "package", **named)
    with pytest.raises(DataInvalid, match=r"mine.jsonl: input 2: second: it has the token '\[DOC\]'"):
        export_checkpoint(config)
    assert not (tmp_path / "package").exists()


def test_built_in_texts_with_such_a_token_are_left_out(tmp_path: Path) -> None:
    checkpoint = _open(_with(checkpoints.save_bi_encoder(tmp_path / "model"), "zebra"))
    assert servable(checkpoint, Texts([("a cat",), ("the zebra",), ("a dog",)], BUILT_IN)).inputs == [
        ("a cat",),
        ("a dog",),
    ]


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint = _open(_with(checkpoints.save_bi_encoder(tmp_path / "model"), " "))
    with pytest.raises(CheckpointUnsupported, match="the tokenizer belongs to another model"):
        servable(checkpoint, calibration_texts(ModelKind.BI_ENCODER))
