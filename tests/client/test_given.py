"""What people pass, and what is made of it: by every call of both clients, of the look-alikes, and of the engine."""

from __future__ import annotations

import enum
import io
import itertools
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.client import AsyncClient, Client, InvalidInput, TokenIds
from pairwire.client.given import PAIR_KEYS
from pairwire.client.inputs import EmbedOptions, ScoreOptions
from pairwire.client.options import SplitLimits
from pairwire.client.requests import embed_parts, rerank_parts, score_documents_parts, score_parts
from pairwire.server import errors
from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.engine.first_stage import FirstStage
from tests.client.conftest import EitherClient
from tests.client.fake_server import FakeServer
from tests.server import serving

Row = namedtuple("Row", ["document", "query"])
"""Its order is not that of a pair."""


@dataclass
class Passage:
    text: str
    source: str = "somewhere"


class Word(enum.StrEnum):
    CAT = "cat"


class Column:
    """A column of a data set: read in order, no list."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]

    def __iter__(self) -> Any:
        return iter(self.values)


class Series(Column):
    """As a Series of pandas: a column, or a row of a table with the names of its columns."""

    def __init__(self, *values: Any, index: tuple[Any, ...] | None = None) -> None:
        super().__init__(*values)
        self.index = index or tuple(range(len(values)))
        self.iloc = values


class DataFrame:
    """As of pandas: iterating gives the names of its columns."""

    columns = ("query", "document")
    dtypes = (object, object)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> str:
        return name

    def __iter__(self) -> Any:
        return iter(self.columns)


class NAType:
    """What pandas has for a missing text."""


def _structured() -> Any:
    return np.array([("d", "q")], dtype=[("document", "U1"), ("query", "U1")])[0]


PAIRS: dict[str, Any] = {
    "tuple": ("q", "d"),
    "list": ["q", "d"],
    "numpy row": np.array(["q", "d"]),
    "numpy row of objects": np.array(["q", "d"], dtype=object),
    "named tuple, the other way round": Row(document="d", query="q"),
    "row of a structured array": _structured(),
    "row of a table": Series("d", "q", index=("document", "query")),
    "series without names": Series("q", "d"),
    "ordered dict": OrderedDict(document="d", query="q"),
    "user dict": UserDict(query="q", document="d"),
    "other keys": {"query": "q", "document": "d", "label": 1, "id": "x"},
    "records in a record": {"query": {"text": "q"}, "document": Passage("d")},
    "records in a tuple": ({"text": "q"}, {"document": "d"}),
    **{" and ".join(keys): dict(zip(keys, ("q", "d"), strict=True)) for keys in PAIR_KEYS},
}


def _pairs(given: Any) -> list[tuple[str, str]]:
    parts = score_parts(given, ScoreOptions(), SplitLimits())
    return [(pair.first, pair.second) for part in parts for pair in part.message.text_pairs.pairs]


@pytest.mark.parametrize("what", PAIRS)
def test_a_pair_is_what_it_means(what: str) -> None:
    assert _pairs([PAIRS[what]]) == [("q", "d")]


def test_pairs_of_all_kinds_may_be_mixed() -> None:
    assert _pairs(list(PAIRS.values())) == [("q", "d")] * len(PAIRS)


@pytest.mark.parametrize(
    "make",
    [list, tuple, deque, iter, lambda pairs: (each for each in pairs), lambda pairs: Column(*pairs), np.array],
)
def test_pairs_are_read_from_what_is_read_in_order(make: Callable[[Any], Any]) -> None:
    assert _pairs(make([("a", "b"), ("c", "d")])) == [("a", "b"), ("c", "d")]
    assert _pairs(zip(["a"], ["b"], strict=True)) == [("a", "b")]


TEXTS: dict[str, Any] = {
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "generator": (each for each in "ab"),
    "values of a mapping": {1: "a", 2: "b"}.values(),
    "numpy": np.array(["a", "b"]),
    "numpy of objects": np.array(["a", "b"], dtype=object),
    "series": Series("a", "b"),
    "column": Column("a", "b"),
    "records": [{"text": "a"}, {"document": "b", "id": 3}],
    "objects": [Passage("a"), Passage("b")],
    "mixed": ["a", {"text": "b"}],
}


def test_texts_are_read_from_what_is_read_in_order() -> None:
    for what, given in TEXTS.items():
        kept = given if what != "generator" else ["a", "b"]
        (part,) = score_documents_parts("q", kept, ScoreOptions(), SplitLimits())
        assert list(part.message.query_documents.documents) == ["a", "b"], what
        (ranked,) = rerank_parts("q", kept, None, ScoreOptions(), SplitLimits())
        assert list(ranked.message.documents) == ["a", "b"], what
        (embedded,) = embed_parts(given, EmbedOptions(), SplitLimits())
        assert list(embedded.message.texts) == ["a", "b"], what


def test_a_text_of_an_enumeration_is_its_value() -> None:
    assert _pairs([(Word.CAT, np.str_("dog"))]) == [("cat", "dog")]


WRONG_LISTS: dict[str, tuple[Any, str]] = {
    "one text": ("ab", "expected a list, got one str; put it into a list"),
    "bytes": (b"ab", "expected a list, got one bytes"),
    "bytearray": (bytearray(b"ab"), "expected a list, got one bytearray"),
    "a mapping by id": ({"doc-1": "a", "doc-2": "b"}, r"a mapping, of which the keys would be read; give list\("),
    "an empty mapping": ({}, "a mapping, of which the keys would be read"),
    "a user's mapping": (UserDict(x="a"), "a mapping, of which the keys would be read"),
    "one record": ({"query": "a", "document": "b"}, "expected a list, got one dict; put it into a list"),
    "one text's record": ({"text": "a"}, "expected a list, got one dict; put it into a list"),
    "keys": ({"a": 1, "b": 2}.keys(), r"the keys of a mapping; give list\(\.\.\.\)"),
    "items": ({"a": "b"}.items(), r"the items of a mapping; give list\(\.\.\.\)"),
    "a set": ({"a", "b"}, "a set has no order"),
    "a frozenset": (frozenset("ab"), "a frozenset has no order"),
    "a file": (io.StringIO("a\nb\n"), r"a file, .*splitlines"),
    "a file of bytes": (io.BytesIO(b"a\nb\n"), r"a file, .*splitlines"),
    "a table": (DataFrame(), "a DataFrame is a table; give a column"),
    "nothing": (None, "expected a list, got NoneType"),
    "a number": (7, "expected a list, got int"),
    "an array without dimensions": (np.array("a"), "expected a list, got ndarray"),
    "token ids": (TokenIds([1]), "expected a list, got TokenIds"),
}

CALLS: dict[str, Callable[[Any], Any]] = {
    "pairs": lambda given: list(score_parts(given, ScoreOptions(), SplitLimits())),
    "documents": lambda given: list(rerank_parts("q", given, None, ScoreOptions(), SplitLimits())),
    "texts": lambda given: list(embed_parts(given, EmbedOptions(), SplitLimits())),
}


@pytest.mark.parametrize("field", CALLS)
@pytest.mark.parametrize("what", WRONG_LISTS)
def test_what_is_no_list_is_refused_by_name(field: str, what: str) -> None:
    given, reason = WRONG_LISTS[what]
    with pytest.raises(InvalidInput, match=rf"^{field}: {reason}"):
        CALLS[field](given)


WRONG_PAIRS: dict[str, tuple[Any, str]] = {
    "no pair": (
        {"question": "a", "answer": "b"},
        r"pairs\[1\]: expected a pair of texts, found the keys question, answer",
    ),
    "half a pair": (
        {"query": "a"},
        r"pairs\[1\]: expected a pair of texts, found the keys query; a pair has first and",
    ),
    "two halves": ({"first": "a", "document": "b"}, r"pairs\[1\]: expected a pair of texts, found the keys first, doc"),
    "two pairs": (
        {"first": "a", "second": "b", "query": "c", "document": "d"},
        r"pairs\[1\]: has more than one pair \(first and second, query and document\); give one",
    ),
    "one text": ("ab", r"pairs\[1\]: expected two texts, e\.g\. \('a', 'b'\), got str"),
    "bytes": (b"ab", r"pairs\[1\]: expected two texts.*got bytes"),
    "a set": ({"a", "b"}, r"pairs\[1\]: expected two texts.*got set"),
    "a table": (DataFrame(), r"pairs\[1\]: expected two texts.*got DataFrame"),
    "a row without a pair": (Series("a", "b", index=("x", "y")), r"pairs\[1\]: expected a pair .* keys x, y"),
    "nothing": (None, r"pairs\[1\]: expected two texts.*None, a missing value"),
    "not a number": (float("nan"), r"pairs\[1\]: expected two texts.*nan, a missing value"),
    "three": (("a", "b", "c"), r"pairs\[1\]: expected two texts, got 3"),
    "a text and nothing": (("a", None), r"pairs\[1\]\.second: expected text \(str\), got NoneType"),
    "a text and no number": ((np.float64("nan"), "b"), r"pairs\[1\]\.first: .*nan.*, a missing value"),
    "a text and nothing of pandas": (("a", NAType()), r"pairs\[1\]\.second: .* a missing value\); leave"),
    "a text and bytes": (("a", b"b"), r"pairs\[1\]\.second: expected text \(str\), got bytes"),
    "a text and a number": ({"query": "a", "document": 3}, r"pairs\[1\]\.second: expected text \(str\), got int"),
    "a record of none": (("a", {"body": "b"}), r"pairs\[1\]\.second: expected a text, found the keys body; it must be"),
    "long keys": ({"k" * 999: "a", "b": "b"}, r"pairs\[1\]: expected a pair of texts, found the keys k{40}, b;"),
    "many keys": (dict.fromkeys("abcdefgh", "a"), r"pairs\[1\]: .* keys a, b, c, d, e and 3 more;"),
}


@pytest.mark.parametrize("what", WRONG_PAIRS)
def test_what_is_no_pair_is_refused_by_name(what: str) -> None:
    given, reason = WRONG_PAIRS[what]
    with pytest.raises(InvalidInput, match=f"^{reason}"):
        CALLS["pairs"]([("a", "b"), given])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, r"expected text \(str\), got NoneType \(None, a missing value\); leave"),
        (float("nan"), r"expected text \(str\), got float \(nan, a missing value\)"),
        (b"a", r"expected text \(str\), got bytes"),
        (["a", "b"], r"expected text \(str\), got list"),
        ({"title": "a"}, "expected a text, found the keys title; it must be called text or document"),
        ({"text": "a", "document": "b"}, "has text and document; give one of them"),
        ({"query": "a", "document": "b"}, r"has a pair of texts \(query, document\) where one text is expected"),
        ({}, "expected a text, found the keys none"),
        (Passage(3), r"expected text \(str\), got Passage"),  # type: ignore[arg-type]
        (np.array(["a"]), r"expected text \(str\), got ndarray"),
    ],
)
def test_what_is_no_text_is_refused_by_name(given: Any, reason: str) -> None:
    for field in ("documents", "texts"):
        with pytest.raises(InvalidInput, match=rf"^{field}\[1\]: {reason}"):
            CALLS[field](["a", given])


async def test_both_clients_send_what_was_meant(client: EitherClient, server: FakeServer) -> None:
    records = [{"query": "a", "document": "bb"}, {"query": "ccc", "document": "dddd"}]
    plain = [("a", "bb"), ("ccc", "dddd")]
    expected = (await client.call("score", plain)).scores
    assert (await client.call("score", records)).scores == pytest.approx(expected)
    streamed = await client.collect("score_stream", iter(records))
    assert np.concatenate([part.scores for part in streamed]) == pytest.approx(expected)
    ranked = await client.call("rerank", "q", [{"text": "a"}, Passage("bb")])
    assert sorted(found.document for found in ranked) == ["a", "bb"]
    for method, given in (("score", {"a": "b"}), ("embed", {"a": "b"}), ("embed_sparse", {"a"})):
        with pytest.raises(InvalidInput, match=r"keys would be read|no order"):
            await client.call(method, given)
    for stream in ("score_stream", "embed_stream", "embed_sparse_stream"):
        with pytest.raises(InvalidInput, match="keys would be read"):
            await client.collect(stream, {"a": "b"})
    with pytest.raises(InvalidInput, match=r"^query: expected text"):
        await client.call("rerank", ["q"], ["a"])


def test_the_look_alikes_take_what_the_clients_take(server: FakeServer) -> None:
    records = [{"query": "a", "document": "bb"}, {"query": "ccc", "document": "dddd"}]
    plain = [("a", "bb"), ("ccc", "dddd")]
    objects = np.empty(2, dtype=object)
    objects[:] = plain
    with Client(server.address) as client:
        model = client.cross_encoder()
        expected = model.predict(plain)
        several: list[Any] = [records, tuple(records), iter(records), Column(*plain), objects, np.array(plain)]
        several.append([Series("a", "bb", index=("query", "document")), ("ccc", "dddd")])
        for given in several:
            assert model.predict(given) == pytest.approx(expected)
        singles: list[Any] = [("a", "bb"), ["a", "bb"], np.array(["a", "bb"]), [{"text": "a"}, {"text": "bb"}]]
        for given in singles:
            assert model.predict(given) == pytest.approx(expected[0])  # type: ignore[index]
        assert model.predict(records[:1]) == pytest.approx(expected[:1])  # type: ignore[index]
        for wrong in ({"query": "a", "document": "b"}, {"id": "a"}, {("a", "b")}, "ab", DataFrame()):
            with pytest.raises(InvalidInput, match=r"^inputs: "):
                model.predict(wrong)  # type: ignore[arg-type]
        ranked = model.rank("q", (each for each in ["a", "bb"]), return_documents=True)
        assert sorted(entry["text"] for entry in ranked) == ["a", "bb"]
        assert len(model.rank("q", np.array(["a", "bb"]))) == 2
        for wrong in ({"id": "a"}, {"a", "b"}, "ab"):
            with pytest.raises(InvalidInput, match=r"^documents: "):
                model.rank("q", wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput, match=r"^inputs: "):
                client.sparse_encoder().encode(wrong if wrong != "ab" else {"a": 1})  # type: ignore[arg-type]
        encoder = client.sentence_encoder()
        vectors = encoder.encode(["a", "bb"])
        assert encoder.encode([{"text": "a"}, Passage("bb")]) == pytest.approx(vectors)
        assert encoder.encode(np.array(["a", "bb"])) == pytest.approx(vectors)
        for wrong in ({"id": "a"}, {"a", "b"}, {"text": "a"}, io.StringIO("a\n")):
            with pytest.raises(InvalidInput, match=r"^inputs: "):
                encoder.encode(wrong)  # type: ignore[arg-type]


@pytest.fixture
async def engine(cross_encoder_package: Path, bi_encoder_package: Path) -> AsyncIterator[Engine]:
    config = EngineConfig(warmup_s=0.01)
    async with await Engine.open(cross_encoder_package, bi_encoder_package, config=config) as found:
        yield found


async def test_records_through_a_real_server_score_as_their_texts(cross_encoder_package: Path) -> None:
    records = [{"query": "a cat", "document": "the dog runs"}, {"first": "a cat", "second": "bread"}]
    async with (
        serving.serve(cross_encoder_package) as served,
        AsyncClient(f"127.0.0.1:{served.application.port}") as client,
    ):
        expected = (await client.score([("a cat", "the dog runs"), ("a cat", "bread")])).scores
        assert (await client.score(records)).scores == pytest.approx(expected, abs=1e-6)
        assert np.ptp(expected) > 1e-4  # or any constant would pass


async def test_the_engine_reads_pairs_and_texts_in_order_and_nothing_else(engine: Engine) -> None:
    plain = [("a cat", "the dog runs"), ("a cat", "bread")]
    expected = (await engine.score(plain)).scores
    for given in (np.array(plain), iter(plain), Column(*map(list, plain)), [Series(*pair) for pair in plain]):
        assert (await engine.score(given)).scores == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]
    documents = ["the dog runs", "bread"]
    for texts in (np.array(documents), iter(documents), {1: documents[0], 2: documents[1]}.values()):
        found = await engine.score_documents("a cat", texts)  # type: ignore[arg-type]
        assert found.scores == pytest.approx(expected, abs=1e-6)
    for given, _ in WRONG_LISTS.values():
        calls: list[tuple[str, Any]] = [
            ("pairs", engine.score(given)),
            ("documents", engine.score_documents("q", given)),
            ("documents", engine.retrieve_and_rerank("q", given, first_stage=FirstStage(keep=1))),
            ("texts", engine.embed(given)),
            ("texts", engine.embed_sparse(given)),
        ]
        for field, call in calls:
            with pytest.raises(errors.InvalidInput, match=f"^{field}: "):
                await call


async def test_the_engine_names_what_is_no_pair(engine: Engine) -> None:
    wrong: list[Any] = ["ab", {"query": "a", "document": "b"}, ("a",), ("a", "b", "c"), {"a", "b"}, None, b"ab"]
    for pair in wrong:
        with pytest.raises(errors.InvalidInput, match=r"^pairs\[1\]: "):
            await engine.score([("a", "b"), pair])


def test_an_endless_generator_is_read_as_far_as_it_is_needed(server: FakeServer) -> None:
    with Client(server.address) as client:
        stream = client.score_stream({"query": "a", "document": str(index)} for index in itertools.count())
        assert len(next(stream)) == 256
        stream.close()  # type: ignore[attr-defined]
