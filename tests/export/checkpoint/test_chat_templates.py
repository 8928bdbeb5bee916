"""Chat templates: what becomes literal text and slots, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pairwire.export.checkpoint.chat_templates import check_options, message_of, read_template
from pairwire.export.errors import CheckpointUnsupported
from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.engine.text.pair_template import PairTemplate, Slot
from pairwire.v1 import manifest_pb2
from tests import checkpoints, decoders

QUERY = '{{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}'
DOCUMENT = '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}'
SYSTEM = '{{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("judge") }}'
IF_SYSTEM = '{% if messages[0].role == "system" %}<s>{{ messages[0].content }}</s>{% endif %}'


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """sentence-transformers' Transformer of a tiny decoder."""
    from sentence_transformers.base.modules import Transformer

    directory = checkpoints.save_decoder_reranker(tmp_path_factory.mktemp("templates") / "reranker", layers=1)
    return Transformer(str(directory), transformer_task="text-generation")


@pytest.fixture
def transformer(reranker: Any) -> Iterator[Any]:
    """The same, whose template and options a test may change."""
    yield reranker
    reranker.processor.chat_template = decoders.TEMPLATE
    reranker.processing_kwargs = {}
    reranker._chat_template_suffix_cache.clear()


def read(transformer: Any, template: str, *, prompts: tuple[str, ...] = (), default: str = "") -> PairTemplate:
    transformer.processor.chat_template = template
    transformer._chat_template_suffix_cache.clear()
    return read_template(transformer, prompts, default)


def test_template_becomes_text_and_slots(transformer: Any) -> None:
    template = read(transformer, f"<Instruct>: {SYSTEM}\n<Query>: {QUERY}\n<Document>: {DOCUMENT}<|im_end|>\n<think>")
    assert template.parts == (
        *("<Instruct>: ", Slot.PROMPT, "\n<Query>: ", Slot.FIRST),
        *("\n<Document>: ", Slot.SECOND, "<|im_end|>\n<think>"),
    )
    assert template.default_prompt == "judge"
    assert transformer.tokenizer.decode(template.suffix_ids) == "<|im_end|>\n<think>"


def test_prompt_first_and_document_before_the_query(transformer: Any) -> None:
    template = read(transformer, f"{SYSTEM}{DOCUMENT} answers {QUERY}?")
    assert template.parts == (Slot.PROMPT, Slot.SECOND, " answers ", Slot.FIRST, "?")
    assert template.default_prompt == "judge"


def test_template_without_a_place_for_a_prompt(transformer: Any) -> None:
    template = read(transformer, f"{QUERY} / {DOCUMENT}", prompts=("Find it",), default="Find it")
    assert (template.parts, template.default_prompt) == ((Slot.FIRST, " / ", Slot.SECOND), "")


def test_text_around_a_prompt_that_may_be_missing_is_refused_only_where_there_are_prompts(transformer: Any) -> None:
    written = f"{IF_SYSTEM}{QUERY} / {DOCUMENT}"
    assert read(transformer, written).parts == (Slot.FIRST, " / ", Slot.SECOND)
    with pytest.raises(CheckpointUnsupported, match="another text around a pair where there is no prompt"):
        read(transformer, written, prompts=("Find it",))


@pytest.mark.parametrize(
    "second",
    [
        '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first | trim }}',
        '{{ (messages | selectattr("role", "eq", "document") | map(attribute="content") | first)[:2000] }}',
        '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first | e }}',
        '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first | replace("<", "") }}',
        '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first or "none" }}',
    ],
)
def test_template_that_changes_texts_is_refused(second: str, transformer: Any) -> None:
    with pytest.raises(CheckpointUnsupported, match="does more than put texts into their places"):
        read(transformer, f"{QUERY} / {second}")


def test_template_that_changes_the_prompt_is_refused(transformer: Any) -> None:
    changed = SYSTEM.replace("| first", "| first | trim")
    with pytest.raises(CheckpointUnsupported, match="does more than put texts into their places"):
        read(transformer, f"{changed} {QUERY} / {DOCUMENT}")
    upper = SYSTEM.replace("| first", "| first | upper")
    with pytest.raises(CheckpointUnsupported, match="changes the prompt"):
        read(transformer, f"{upper} {QUERY} / {DOCUMENT}")


def test_template_that_changes_letters_is_refused(transformer: Any) -> None:
    with pytest.raises(CheckpointUnsupported, match="changes the second text"):
        read(transformer, f"{QUERY} / {DOCUMENT.replace('first }}', 'first | lower }}')}")


def test_prompt_behind_both_texts_is_refused(transformer: Any) -> None:
    with pytest.raises(CheckpointUnsupported, match="the prompt behind both texts"):
        read(transformer, f"{QUERY} / {DOCUMENT} / {SYSTEM}")


def test_template_of_a_chat_is_refused(transformer: Any) -> None:
    chat = '{% for message in messages %}{% if message.role == "user" %}{{ message.content }}{% endif %}{% endfor %}'
    with pytest.raises(CheckpointUnsupported, match="cannot carry a query and a document"):
        read(transformer, chat)


def test_options_of_the_template_are_followed(transformer: Any) -> None:
    written = f"{{% if terse %}}{QUERY}/{DOCUMENT}.{{% else %}}{QUERY} and {DOCUMENT}{{% endif %}}"
    transformer.processing_kwargs = {"chat_template": {"terse": True, "restore_suffix": False}}
    check_options(transformer)
    template = read(transformer, written)
    assert (template.parts, template.suffix_ids) == ((Slot.FIRST, "/", Slot.SECOND, "."), ())


@pytest.mark.parametrize(
    "options",
    [{"text": {"max_length": 12}}, {"common": {"padding_side": "right"}}, {"chat_template": {"max_length": 12}}],
)
def test_options_that_change_tokenisation_are_refused(options: dict[str, Any], transformer: Any) -> None:
    transformer.processing_kwargs = options
    with pytest.raises(CheckpointUnsupported, match="change tokenisation"):
        check_options(transformer)


def test_manifest_keeps_the_template() -> None:
    template = PairTemplate(("a: ", Slot.PROMPT, Slot.FIRST, " b ", Slot.SECOND), "judge", (3, 4))
    manifest = manifest_pb2.ModelManifest(max_length=64, template=message_of(template))
    assert rules_of(manifest).template == template
    assert message_of(None) is None
