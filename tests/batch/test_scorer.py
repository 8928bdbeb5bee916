"""The one object for Ray, Spark and DuckDB: tables of every kind in, the same kind out, one engine a process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pairwire.batch import Scorer, sharing
from pairwire.batch.errors import InputUnusable
from pairwire.client import InvalidInput
from pairwire.server.engine import Engine
from pairwire.server.errors import InvalidInput as ServerInvalidInput

from .conftest import QUICK

PAIRS = [("what is a tide", "the moon pulls the sea"), ("bread", "flour"), ("a", "b")]


def _table(pairs: list[tuple[str, str]] = PAIRS) -> pa.Table:
    return pa.table({"id": range(len(pairs)), "first": [a for a, _ in pairs], "second": [b for _, b in pairs]})


@pytest.fixture
def scorer(scorer_package: Path) -> Iterator[Scorer]:
    with Scorer(scorer_package, engine=QUICK) as found:
        yield found
    assert not sharing._engines, "an engine was left open"


@pytest.fixture
async def expected(scorer_package: Path) -> np.ndarray:
    async with await Engine.open(scorer_package, config=sharing.batch_config(**QUICK)) as engine:
        return (await engine.score(PAIRS)).scores[:, 0]


def test_a_table_keeps_its_columns_and_gets_scores(scorer: Scorer, expected: np.ndarray) -> None:
    found = scorer(_table())
    assert found.column_names == ["id", "first", "second", "score"]
    assert found.drop_columns("score") == _table()
    assert found["score"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_what_goes_in_comes_out(scorer: Scorer, expected: np.ndarray) -> None:
    batch = scorer(_table().to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    given = {name: np.array(values, object) for name, values in _table().to_pydict().items()}
    arrays = scorer(given)
    assert isinstance(arrays["score"], np.ndarray)
    for found in (batch["score"].to_numpy(), arrays["score"]):
        assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(TypeError, match="got list"):
        scorer([("a", "b")])


def test_pandas_keeps_its_index(scorer: Scorer, expected: np.ndarray) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(_table().to_pydict(), index=[7, 5, 9])
    found = scorer(frame)
    assert list(found.index) == [7, 5, 9]
    assert found["score"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_it_travels_closed_and_opens_where_it_is_called(scorer: Scorer) -> None:
    first = scorer(_table())
    travelled = pickle.loads(pickle.dumps(scorer))
    assert len(sharing._engines) == 1
    assert travelled(_table())["score"].to_pylist() == pytest.approx(first["score"].to_pylist(), abs=1e-6)
    assert len(sharing._engines) == 1, "two objects of one package share an engine"
    travelled.close()
    assert len(sharing._engines) == 1
    assert scorer(_table()).num_rows == 3


def test_several_threads_may_call_it(scorer: Scorer) -> None:
    pairs = [(f"a {number % 50}", f"b {number % 30}") for number in range(2000)]
    whole = scorer(_table(pairs))["score"].to_numpy()
    found: dict[int, np.ndarray] = {}

    def call(part: int) -> None:
        found[part] = scorer(_table(pairs[part * 500 : part * 500 + 500]))["score"].to_numpy()

    threads = [threading.Thread(target=call, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.concatenate([found[part] for part in range(4)]) == pytest.approx(whole, abs=1e-5)


def test_batches_stream_in_order(scorer: Scorer) -> None:
    batches = [_table([(f"a {number}", "b")]).to_batches()[0] for number in range(9)]
    found = list(scorer.stream(iter(batches)))
    assert [batch["first"][0].as_py() for batch in found] == [f"a {number}" for number in range(9)]
    assert all(batch.schema.names[-1] == "score" for batch in found)
    assert list(scorer.stream([])) == []


def test_a_bad_row_is_named_or_left_empty(scorer: Scorer, scorer_package: Path) -> None:
    table = pa.table({"first": ["a", None, "c " * 200], "second": ["b", "b", "b"]})
    with pytest.raises(ValueError, match=r"row 1: first: missing; on_error='null'"):
        scorer(table)
    with Scorer(scorer_package, on_error="null", truncation="error", engine=QUICK) as forgiving:
        scores = forgiving(table)["score"].to_pylist()
    assert scores[0] is not None
    assert scores[1:] == [None, None]


def test_empty_tables_are_tables(scorer: Scorer) -> None:
    found = scorer(_table([]).cast(pa.schema([("id", pa.int64()), ("first", pa.string()), ("second", pa.string())])))
    assert (found.num_rows, found.schema.field("score").type) == (0, pa.float32())


def test_columns_are_checked_by_name(scorer: Scorer, scorer_package: Path) -> None:
    with pytest.raises(InputUnusable, match="no column 'second'"):
        scorer(pa.table({"first": ["a"]}))
    with pytest.raises(InputUnusable, match="is int64, expected text"):
        scorer(pa.table({"first": [1], "second": ["a"]}))
    with pytest.raises(InputUnusable, match="has a column 'score' already"):
        scorer(_table().append_column("score", pa.array([1, 2, 3])))
    with Scorer(scorer_package, columns=("q", "d"), engine=QUICK) as renamed:
        assert renamed(pa.table({"q": ["a"], "d": ["b"]})).column_names == ["q", "d", "score"]


def test_what_cannot_work_is_said_at_once(scorer_package: Path, embedder_package: Path) -> None:
    with pytest.raises(ValueError, match="'sort' is none of score"):
        Scorer(scorer_package, "sort")
    with pytest.raises(ValueError, match="top_k"):
        Scorer(scorer_package, top_k=3)
    with pytest.raises(TypeError, match="dimensions"):
        Scorer(scorer_package, dimensions=3)
    with pytest.raises(InvalidInput, match="truncation"):
        Scorer(scorer_package, truncation="never")
    with pytest.raises(ValueError, match="on_error"):
        Scorer(scorer_package, on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(ServerInvalidInput, match="embedder"), Scorer(embedder_package, engine=QUICK) as wrong:
        wrong(_table())
    assert not sharing._engines


def test_rankings_are_best_first(scorer_package: Path, scorer: Scorer) -> None:
    documents = ["a b c", "d", "the moon"]
    scores = scorer(_table([("q", each) for each in documents]))["score"].to_numpy()
    order = np.argsort(-scores, kind="stable")
    with Scorer(scorer_package, "rerank", top_k=2, on_error="null", engine=QUICK) as ranker:
        found = ranker(pa.table({"query": ["q", "q", None], "documents": [documents, [], ["a"]]})).to_pylist()
    assert found[0]["indices"] == order[:2].tolist()
    assert found[0]["scores"] == pytest.approx(scores[order[:2]].tolist(), abs=1e-6)
    assert [row["indices"] for row in found[1:]] == [None, None]


@pytest.mark.parametrize(
    ("encoding", "kind", "width"),
    [("float32", pa.float32(), 8), ("float16", pa.float16(), 8), ("int8", pa.int8(), 8), ("binary", pa.uint8(), 1)],
)
def test_vectors_are_lists_of_a_fixed_size(
    embedder_package: Path, encoding: str, kind: pa.DataType, width: int
) -> None:
    with Scorer(embedder_package, "embed", encoding=encoding, on_error="null", engine=QUICK) as embedder:
        table = embedder(pa.table({"text": ["a", None, "the moon"]}))
        arrays = embedder({"text": np.array(["a", "the moon"], object)})
    assert table.schema.field("embedding").type == pa.list_(kind, width)
    assert table["embedding"].null_count == 1
    assert arrays["embedding"].shape == (2, width)
    assert table["embedding"][2].as_py() == arrays["embedding"][1].tolist()


def test_sparse_vectors_are_two_lists(sparse_package: Path) -> None:
    with Scorer(sparse_package, "embed-sparse", max_active_dims=5, engine=QUICK) as embedder:
        found = embedder(pa.table({"text": ["a", "the moon"]})).to_pylist()
    for row in found:
        assert len(row["indices"]) == len(row["values"]) == 5
        assert row["indices"] == sorted(row["indices"])


def test_a_function_of_columns(scorer: Scorer, expected: np.ndarray) -> None:
    table = _table()
    assert scorer.function()(table["first"], table["second"]).to_numpy() == pytest.approx(expected, abs=1e-6)
