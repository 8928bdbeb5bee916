"""Rows are what transformers' own tokenizers make of the same texts: every family, any Unicode, any limit.

Ids, token types, lengths and what counts as cut are compared, for single texts and pairs, cold and from a warm cache.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed: the [export] extra brings it", allow_module_level=True)

from tokenizers import Tokenizer

from pairwire.server.engine import TokenIds, Truncation
from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder, TextRules
from pairwire.server.errors import InvalidInput
from tests import architectures
from tests.server.engine import families

SPELT = ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "</s>", "<s>", "<mask>", "<pad>", "<unk>", "<|im_end|>", "<|im_start|>")
PIECES = (
    *SPELT,
    *(f" {special}" for special in SPELT),
    *(f"{special} " for special in SPELT),
    "the cat",
    "Straße",
    "é",
    "e\u0301",
    "\u0301\u0323",
    "ﬁ½Å",
    "İı",
    "猫が寝ている",
    "한국어",
    "שלום",
    "مرحبا\u200f",
    "สวัสดี",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "\u200b",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "\ufffd",
    "\x00",
    "\x07\x1b",
    "\r\n",
    "\t",
    " ",
    "    ",
    "▁",
    "Ġ",
    "##ing",
    "``x''",
    "don't",
    "3.5%",
    "x" * 150,
)
"""What tokenizers trip over; what is between them is random."""

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=24),
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)), max_size=12
    ).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join),
    st.integers(8, 30).map("the cat sleeps ".__mul__),
)
thrifty = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
MAX_LENGTH = 40


@functools.cache
def both(family: str, truncate_left: bool) -> tuple[Any, TextEncoder]:
    """The tokenizer of transformers, and ours of its backend."""
    tokenizer = families.tokenizer(family)
    tokenizer.truncation_side = "left" if truncate_left else "right"
    rules = TextRules(max_length=MAX_LENGTH, pad_token_id=0, truncate_left=truncate_left, prompt_excluded=True)
    return tokenizer, TextEncoder(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), rules)


def expected_rows(
    tokenizer: Any, firsts: Sequence[str], seconds: Sequence[str] | None, max_length: int, strategy: str
) -> list[tuple[list[int], list[int], bool]]:
    """Ids, token types and whether it was cut, of each row."""
    pairs = [list(firsts)] if seconds is None else [list(firsts), list(seconds)]
    cut = tokenizer(*pairs, truncation=strategy, max_length=max_length, return_token_type_ids=True)
    whole = tokenizer(*pairs, truncation=False, verbose=False)["input_ids"]
    rows = zip(cut["input_ids"], cut["token_type_ids"], whole, strict=True)
    return [(ids, types, len(full) > max_length) for ids, types, full in rows]


def rows_of(encoder: TextEncoder, encoded: EncodedRows) -> list[tuple[list[int], list[int], bool]]:
    """The same of ours, by way of a batch and of a packed batch."""
    order = [(encoded, index) for index in range(len(encoded))]
    packed, padded = encoder.pack(order), encoder.assemble(order, MAX_LENGTH)
    assert packed.lengths.tolist() == padded.lengths.tolist() == encoded.lengths.tolist()
    inside = np.arange(MAX_LENGTH) < padded.lengths[:, None]
    assert packed.input_ids.tolist() == padded.input_ids[inside].tolist()
    assert packed.token_type_ids.tolist() == padded.token_type_ids[inside].tolist()
    cut = set(encoded.truncated.tolist())
    return [
        (padded.input_ids[index, :length].tolist(), padded.token_type_ids[index, :length].tolist(), index in cut)
        for index, length in enumerate(padded.lengths.tolist())
    ]


def refuses(expected: Sequence[tuple[list[int], list[int], bool]], encode: Callable[[], EncodedRows]) -> bool:
    """Whether a row has no token at all, of which the library makes no batch; then ``encode`` must refuse it."""
    empty = [index for index, (ids, _, _) in enumerate(expected) if not ids]
    if empty:
        with pytest.raises(InvalidInput, match=rf"\[{empty[0]}\].*: no token is left of it, and this model puts none"):
            encode()
    return bool(empty)


@pytest.mark.parametrize("family", families.NAMES)
@thrifty
@given(
    firsts=st.lists(texts, min_size=3, max_size=3),
    seconds=st.lists(texts, min_size=3, max_size=3),
    more=st.one_of(st.none(), st.integers(1, 20)),
    truncate_left=st.booleans(),
)
def test_pairs(family: str, firsts: list[str], seconds: list[str], more: int | None, truncate_left: bool) -> None:
    tokenizer, encoder = both(family, truncate_left)
    max_length = MAX_LENGTH if more is None else tokenizer.num_special_tokens_to_add(pair=True) + more
    expected = expected_rows(tokenizer, firsts, seconds, max_length, "longest_first")
    if refuses(expected, lambda: encoder.encode_pairs(firsts, seconds)):
        return
    cache = ByteCache(1 << 20)
    for given_cache in (ByteCache(0), cache, cache):
        encoded = encoder.encode_pairs(firsts, seconds, max_length=max_length, cache=given_cache)
        assert rows_of(encoder, encoded) == expected
    expected = expected_rows(tokenizer, firsts[:1] * 3, seconds, max_length, "longest_first")
    if not refuses(expected, lambda: encoder.encode_pairs(firsts[:1], seconds)):
        shared = encoder.encode_pairs(firsts[:1], seconds, max_length=max_length, cache=cache)
        assert rows_of(encoder, shared) == expected


@pytest.mark.parametrize("only", ["only_first", "only_second"])
@pytest.mark.parametrize("family", families.NAMES)
@thrifty
@given(first=texts, second=texts, more=st.integers(1, 30), truncate_left=st.booleans())
def test_only_one_of_both_is_cut(
    family: str, only: str, first: str, second: str, more: int, truncate_left: bool
) -> None:
    tokenizer, encoder = both(family, truncate_left)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    max_length = special + more
    whole, name = (second, "second") if only == "only_first" else (first, "first")
    alone = len(tokenizer([whole], add_special_tokens=False, verbose=False)["input_ids"][0])
    encode = functools.partial(
        encoder.encode_pairs, [first], [second], max_length=max_length, truncation=Truncation(only)
    )
    if alone > more:
        with pytest.raises(InvalidInput, match=rf"{name}: {alone + special} tokens .* exceed max_length {max_length}"):
            encode()
        return
    if alone == more:  # nothing of the other is left, which the library refuses to do
        assert encode().lengths.tolist() == [max_length]
        return
    expected = expected_rows(tokenizer, [first], [second], max_length, only)
    if not refuses(expected, encode):
        assert rows_of(encoder, encode()) == expected


@pytest.mark.parametrize("family", families.NAMES)
@thrifty
@given(
    given_texts=st.lists(texts, min_size=3, max_size=3),
    prompt=st.one_of(st.just(""), texts),
    more=st.one_of(st.none(), st.integers(1, 20)),
    truncate_left=st.booleans(),
)
def test_single_texts(family: str, given_texts: list[str], prompt: str, more: int | None, truncate_left: bool) -> None:
    tokenizer, encoder = both(family, truncate_left)
    max_length = MAX_LENGTH if more is None else tokenizer.num_special_tokens_to_add(pair=False) + more
    expected = expected_rows(tokenizer, [prompt + text for text in given_texts], None, max_length, "longest_first")
    if refuses(expected, lambda: encoder.encode_texts(given_texts, prompt=prompt)):
        return
    cache = ByteCache(1 << 20)
    for given_cache in (ByteCache(0), cache, cache):
        encoded = encoder.encode_texts(given_texts, prompt=prompt, max_length=max_length, cache=given_cache)
        assert rows_of(encoder, encoded) == expected


@pytest.mark.parametrize("family", families.NAMES)
@thrifty
@given(first=texts, second=texts, more=st.integers(1, 20))
def test_token_ids_are_the_texts_that_they_were_made_of(family: str, first: str, second: str, more: int) -> None:
    tokenizer, encoder = both(family, False)
    ids = tokenizer([first, second], add_special_tokens=False, verbose=False)["input_ids"]
    assume(ids[0] or encoder.takes_empty_texts)
    max_length = tokenizer.num_special_tokens_to_add(pair=True) + more
    expected = encoder.encode_pairs([first], [second], max_length=max_length)
    for pair in ((TokenIds(ids[0]), TokenIds(ids[1])), (TokenIds(ids[0]), second), (first, TokenIds(ids[1]))):
        encoded = encoder.encode_pairs([pair[0]], [pair[1]], max_length=max_length, cache=ByteCache(1 << 20))
        assert encoded.rows == expected.rows
        assert encoded.truncated.tolist() == expected.truncated.tolist()
    assert encoder.encode_texts([TokenIds(ids[0])]).rows == encoder.encode_texts([first]).rows


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The text stage of sentence-transformers; which tokenizer it reads with is set by the test."""
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModel

    directory = tmp_path_factory.mktemp("stage")
    tokenizer = families.tokenizer("bert")
    AutoModel.from_config(architectures.config("bert", tokenizer, layers=1)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Transformer(str(directory))


@pytest.mark.parametrize("family", families.NAMES)
@thrifty
@given(
    text=texts.filter(bool), prompt=texts, more=st.one_of(st.none(), st.integers(1, 20)), truncate_left=st.booleans()
)
def test_prompts_are_as_long_as_sentence_transformers_takes_them_for(
    stage: Any, family: str, text: str, prompt: str, more: int | None, truncate_left: bool
) -> None:
    stage.processor, encoder = both(family, truncate_left)
    if prompt and not stage.processor([prompt], verbose=False)["input_ids"][0]:
        return  # a prompt without tokens, which the library fails on
    max_length = MAX_LENGTH if more is None else stage.processor.num_special_tokens_to_add(pair=False) + more
    stage.max_seq_length = max_length
    stage._prompt_length_mapping.clear()
    features = stage.preprocess([text], prompt=prompt)
    cache = ByteCache(1 << 20)
    for given_cache in (cache, cache):
        encoded = encoder.encode_texts([text], prompt=prompt, max_length=max_length, cache=given_cache)
        batch = encoder.assemble([(encoded, 0)], int(encoded.lengths[0]), total_rows=2)
        assert batch.input_ids[0].tolist() == features["input_ids"][0].tolist()
        assert batch.prompt_lengths.tolist() == [features.get("prompt_length", 0), 0]
