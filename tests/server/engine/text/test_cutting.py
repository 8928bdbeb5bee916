"""Cutting a text before it is tokenised changes nothing of what a model reads, and is not done where it might."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.cutting import cutting_of
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.engine.text.truncation import Truncation
from pairwire.server.errors import InvalidInput
from tests.server.engine import toys

_LENGTH = 12
_WORDS = (
    *("the", "fox", "jumps", "bread", "x" * 150, "don't", "3.14", "naïve", "ÄÖ", "Σίσυφος", "хлеб"),
    *(
        "猫が敷物",
        "e\u0301",
        "\u0301",
        "[SEP]",
        "<s>",
        "?!",
        "\t",
        "\n",
        "  ",
        "\u200d",
        "\u00a0",
        "ﬁ",
        "\U0001f600",
        "▁",
    ),
)

texts = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=80).map(" ".join)
joined = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=80).map("".join)


def _encoders(name: str) -> tuple[TextEncoder, TextEncoder]:
    """One that cuts, and one that does not."""
    rules = TextRules(max_length=_LENGTH)
    cutting, whole = (TextEncoder(toys.TOKENIZERS[name](), rules) for _ in range(2))
    whole._cutting = None
    return cutting, whole


@pytest.mark.parametrize("name", list(toys.TOKENIZERS))
@given(given_texts=st.lists(st.one_of(texts, joined), min_size=1, max_size=3), length=st.sampled_from([None, 7, 6]))
@settings(max_examples=60, deadline=None)
def test_rows_are_what_they_would_be_of_the_whole_text(name: str, given_texts: list[str], length: int | None) -> None:
    cutting, whole = _encoders(name)
    cache = ByteCache(1 << 20)
    for _ in range(2):  # the second time from the cache
        ours = cutting.encode_texts(given_texts, max_length=length, cache=cache)
        theirs = whole.encode_texts(given_texts, max_length=length)
        assert ours.rows == theirs.rows
        assert ours.truncated.tolist() == theirs.truncated.tolist()
        for firsts in (given_texts[:1], given_texts[::-1]):
            pairs = cutting.encode_pairs(firsts, given_texts, max_length=length, cache=cache)
            assert pairs.rows == whole.encode_pairs(firsts, given_texts, max_length=length).rows


@pytest.mark.parametrize("name", list(toys.TOKENIZERS))
def test_little_of_a_long_text_is_tokenised(name: str) -> None:
    draw = random.Random(0)
    text = " ".join("".join(draw.choices(string.ascii_lowercase, k=5)) for _ in range(50_000))
    cutting, whole = _encoders(name)
    assert cutting.most_characters(Truncation.LONGEST_FIRST) < 20 * _LENGTH
    assert len(cutting.tokenize([text])[0]) < 40 * _LENGTH * 4 < len(whole.tokenize([text])[0])
    assert cutting.encode_texts([text]).rows == whole.encode_texts([text]).rows


def test_who_asks_for_an_error_is_told_the_whole_length() -> None:
    cutting, whole = _encoders("wordpiece")
    text, cache = "fox " * 500, ByteCache(1 << 20)
    cutting.encode_texts([text], cache=cache)
    for encoder, known in ((cutting, cache), (whole, ByteCache(0))):
        with pytest.raises(InvalidInput, match="502 tokens") as caught:
            encoder.encode_texts([text], truncation=Truncation.ERROR, cache=known)
        assert caught.value.field == "texts[0]"
        with pytest.raises(InvalidInput, match="503 tokens"):
            encoder.encode_pairs([text], ["fox"], truncation=Truncation.ONLY_SECOND, cache=known)


def _word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"fox": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_a_tokenizer_that_might_look_further_is_given_whole_texts() -> None:
    assert cutting_of(_word_level(), 8) is not None
    spaced, across, unsplit, dropped, scripts = (_word_level() for _ in range(5))
    spaced.add_tokens([AddedToken("fox fox")])
    across.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("x f", "y")])
    unsplit.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    dropped.model = models.BPE(dropout=0.1)
    scripts.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.UnicodeScripts()])
    for tokenizer in (spaced, across, unsplit, dropped, scripts, Tokenizer(models.BPE())):
        assert cutting_of(tokenizer, 8) is None
    assert TextEncoder(toys.wordpiece(), TextRules(max_length=8, truncate_left=True)).most_characters(
        Truncation.LONGEST_FIRST
    ) == float("inf")
