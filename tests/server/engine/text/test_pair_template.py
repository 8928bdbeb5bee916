"""Pairs that a template makes one text of are tokenised and cut as sentence-transformers does with a chat template."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pairwire.server.engine import TokenIds, Truncation
from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder, TextRules
from pairwire.server.engine.text.pair_template import PairTemplate, Slot
from pairwire.server.errors import InvalidInput
from tests import decoders
from tests.server.engine import toys

SHORT = PairTemplate(("judge ", Slot.PROMPT, ": ", Slot.FIRST, " and ", Slot.SECOND, " answer"), "fit")
QWEN3 = PairTemplate(
    (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: ',
        Slot.PROMPT,
        "\n<Query>: ",
        Slot.FIRST,
        "\n<Document>: ",
        Slot.SECOND,
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    default_prompt="Given a web search query, retrieve relevant passages that answer the query",
)
"""What `decoders.TEMPLATE` says in Jinja."""
PLAIN = PairTemplate(("Query: ", Slot.FIRST, "\nDocument: ", Slot.SECOND, "s on the warm mat?"))
PLAIN_JINJA = """\
Query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
Document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}s on the warm mat?"""
"""Nothing keeps its end apart from the document: "sleep" and "s" become one token."""
PIECES = (
    "the cat ",
    "sleep",
    "<|im_end|>",
    "<|im_start|>",
    "\n",
    "\n\n",
    " ",
    "?",
    "no",
    "yes",
    "猫",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "\x00",
)

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.integers(1, 40).map(lambda times: "the cat sleeps " * times + "and sleep"),
)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The text stage of sentence-transformers over a small decoder."""
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed: the [export] extra brings it")
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModelForCausalLM

    directory: Path = tmp_path_factory.mktemp("decoder")
    tokenizer = decoders.tokenizer()
    AutoModelForCausalLM.from_config(decoders.config("qwen3", tokenizer, layers=1)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Transformer(str(directory), transformer_task="text-generation")


def _encoder(transformer: Any, template: PairTemplate, *, truncate_left: bool = False) -> TextEncoder:
    """Ours, with the suffix that the library finds."""
    messages = transformer.input_formatter.pair_to_messages(("a", "b"))
    suffix = tuple(transformer._chat_template_suffix_ids(messages, {}, {}))
    assert suffix
    rules = TextRules(
        max_length=decoders.POSITIONS,
        truncate_left=truncate_left,
        template=PairTemplate(template.parts, template.default_prompt, suffix),
    )
    return TextEncoder(Tokenizer.from_str(transformer.tokenizer.backend_tokenizer.to_str()), rules)


def _ids(encoder: TextEncoder, encoded: EncodedRows, index: int = 0) -> list[int]:
    batch = encoder.assemble([(encoded, index)], int(encoded.lengths[index]))
    assert not batch.token_type_ids.any()
    return list(batch.input_ids[0].tolist())


@pytest.mark.parametrize("template", [QWEN3, PLAIN], ids=["qwen3", "plain"])
@settings(deadline=None, max_examples=60)
@given(
    first=texts,
    second=texts,
    prompt=st.one_of(st.just(""), texts),
    max_length=st.integers(40, decoders.POSITIONS),
    truncate_left=st.booleans(),
)
def test_rows_are_what_sentence_transformers_makes_of_the_chat_template(
    transformer: Any,
    template: PairTemplate,
    first: str,
    second: str,
    prompt: str,
    max_length: int,
    truncate_left: bool,
) -> None:
    tokenizer = transformer.tokenizer
    tokenizer.chat_template = decoders.TEMPLATE if template is QWEN3 else PLAIN_JINJA
    tokenizer.truncation_side = "left" if truncate_left else "right"
    transformer._chat_template_suffix_cache.clear()
    encoder = _encoder(transformer, template, truncate_left=truncate_left)
    encoded = encoder.encode_pairs([first], [second], prompt=prompt, max_length=max_length)
    whole = tokenizer(template.render(first, second, prompt), add_special_tokens=False, verbose=False)["input_ids"]

    for limit in (max_length, len(whole)):  # the second is a row that is full, but not cut
        if not 40 <= limit <= decoders.POSITIONS:
            continue
        encoded = encoder.encode_pairs([first], [second], prompt=prompt, max_length=limit)
        transformer.max_seq_length = limit
        expected = transformer.preprocess([(first, second)], prompt=prompt)["input_ids"][0].tolist()
        assert _ids(encoder, encoded) == expected
        assert encoded.truncated.tolist() == ([0] if len(whole) > limit else [])


def _short(max_length: int = 12, *, suffix: str = "answer", truncate_left: bool = False, **changes: Any) -> TextEncoder:
    """Words are tokens."""
    tokenizer = toys.wordpiece()
    tokenizer.add_tokens(["judge", "fit", "answer", "and", "query", "document", "prompt"])
    ids = tuple(tokenizer.encode(suffix, add_special_tokens=False).ids)
    parts = changes.get("parts", SHORT.parts)
    template = PairTemplate(parts, SHORT.default_prompt, ids)
    return TextEncoder(tokenizer, TextRules(max_length=max_length, truncate_left=truncate_left, template=template))


def _words(encoder: TextEncoder, encoded: EncodedRows, index: int = 0) -> str:
    words = [encoder.tokenizer.id_to_token(each) for each in _ids(encoder, encoded, index)]
    return " ".join(words)


def test_a_prompt_takes_its_place_and_an_empty_one_is_none() -> None:
    assert SHORT.render("q", "d") == SHORT.render("q", "d", "") == "judge fit: q and d answer"
    assert SHORT.render("q", "d", "by taste") == "judge by taste: q and d answer"
    assert SHORT.render("{", "}") == "judge fit: { and } answer"


def test_a_text_may_stand_in_several_places() -> None:
    template = PairTemplate((Slot.SECOND, "|", Slot.FIRST, "|", Slot.SECOND))
    assert template.render("q", "d") == "d|q|d"
    assert (SHORT.characters_after_second, template.characters_after_second) == (7, None)
    assert PairTemplate((Slot.SECOND, Slot.FIRST)).characters_after_second is None
    assert PairTemplate((Slot.FIRST, Slot.SECOND)).characters_after_second == 0


@pytest.mark.parametrize(("parts", "missing"), [((), "first and second"), ((Slot.FIRST, "x"), "second")])
def test_a_template_without_a_text_is_none(parts: tuple[str | Slot, ...], missing: str) -> None:
    with pytest.raises(ValueError, match=f"without the slot {missing}$"):
        PairTemplate(parts)


def test_a_query_is_rendered_with_each_of_its_documents() -> None:
    encoder = _short()
    encoded = encoder.encode_pairs(["query"], ["document", "query", "query " * 20, "document"])
    assert _words(encoder, encoded, 0) == "judge fit : query and document answer"
    assert _words(encoder, encoded, 1) == "judge fit : query and query answer"
    assert _words(encoder, encoded, 2) == "judge fit : query and query query query query query query answer"
    assert encoded.rows[0] == encoded.rows[3]
    assert encoded.lengths.tolist() == [7, 7, 12, 7]
    assert encoded.truncated.tolist() == [2]


def test_a_cut_at_the_beginning_keeps_the_end() -> None:
    encoder = _short(6, truncate_left=True)
    encoded = encoder.encode_pairs(["query"], ["document"])
    assert _words(encoder, encoded) == "fit : query and document answer"
    assert encoded.truncated.tolist() == [0]


def test_only_second_cuts_nothing_but_the_document_or_refuses() -> None:
    encoder = _short()
    names = ("query", "documents[{}]")
    long = encoder.encode_pairs(["query"], ["document " * 20], truncation=Truncation.ONLY_SECOND, fields=names)
    assert long.rows == encoder.encode_pairs(["query"], ["document " * 20]).rows
    edge = encoder.encode_pairs(["query " * 7], ["document"] * 2, truncation=Truncation.ONLY_SECOND, fields=names)
    assert _words(encoder, edge) == "judge fit : query query query query query query query and answer"
    assert edge.truncated.tolist() == [0, 1]
    with pytest.raises(InvalidInput, match=r"^query: 13 tokens with special tokens exceed max_length 12; shorten"):
        encoder.encode_pairs(["query " * 8], ["document"], truncation=Truncation.ONLY_SECOND, fields=names)


@pytest.mark.parametrize(
    "encoder",
    [_short(truncate_left=True), _short(parts=(Slot.SECOND, " and ", Slot.FIRST, " answer"))],
    ids=["left", "second-first"],
)
def test_only_second_is_refused_where_other_text_would_be_cut(encoder: TextEncoder) -> None:
    assert encoder.encode_pairs(["query"], ["document"], truncation=Truncation.ONLY_SECOND).truncated.tolist() == []
    with pytest.raises(InvalidInput, match=r"^truncation: only_second: .* use longest_first or error"):
        encoder.encode_pairs(["query"], ["document " * 20], truncation=Truncation.ONLY_SECOND)


def test_what_does_not_fit_is_refused_where_cutting_is_forbidden() -> None:
    encoder = _short()
    assert encoder.encode_pairs(["query"], ["query " * 6], truncation=Truncation.ERROR).lengths.tolist() == [12]
    with pytest.raises(InvalidInput, match=r"^pairs\[1\]\.second: 13 tokens .* exceed max_length 12"):
        encoder.encode_pairs(["query"] * 2, ["query", "query " * 7], truncation=Truncation.ERROR)


def test_a_limit_leaves_room_for_more_than_the_end() -> None:
    encoder = _short(suffix="and answer")
    assert encoder.encode_pairs(["query"], ["document"], max_length=3).lengths.tolist() == [3]
    with pytest.raises(InvalidInput, match="max_length: 2 leaves no room for text; at least 3"):
        encoder.encode_pairs(["query"], ["document"], max_length=2)


def test_rendered_texts_are_not_kept() -> None:
    encoder, cache = _short(), ByteCache(1 << 20)
    encoder.encode_pairs(["query"], ["document"], cache=cache)
    assert cache.statistics().entries == 0


def test_token_ids_have_no_place_in_a_template() -> None:
    for pair in ((TokenIds([5]), "document"), ("query", TokenIds([5]))):
        with pytest.raises(InvalidInput, match=r"pairs\[0\]\.(first|second): token ids are no text, and this model"):
            _short().encode_pairs([pair[0]], [pair[1]])


def test_rendered_rows_are_packed_as_they_are_padded() -> None:
    encoder = _short()
    encoded = encoder.encode_pairs(["query"], ["document", "query"])
    packed = encoder.pack([(encoded, 1), (encoded, 0)])
    assert packed.input_ids.tolist() == _ids(encoder, encoded, 1) + _ids(encoder, encoded, 0)
    assert packed.token_type_ids.dtype == np.int32
    assert packed.lengths.tolist() == [7, 7]


def test_a_query_that_a_template_repeats_into_gigabytes_is_refused() -> None:
    encoder = _short()
    query = "the dog " * (1 << 17)
    with pytest.raises(InvalidInput, match=r"query: 64 pairs make \d+ characters .* at most 33554432 may be; shorten"):
        encoder.encode_pairs([query], [str(at) for at in range(64)], fields=("query", "documents[{}]"))
    assert len(encoder.encode_pairs([query], ["ok"])) == 1


def test_only_first_is_refused_where_a_row_must_be_cut() -> None:
    encoder = _short()
    assert encoder.encode_pairs(["query"], ["document"], truncation=Truncation.ONLY_FIRST).truncated.tolist() == []
    with pytest.raises(InvalidInput, match=r"^truncation: only_first: .* use longest_first"):
        encoder.encode_pairs(["query " * 20], ["document"], truncation=Truncation.ONLY_FIRST)
