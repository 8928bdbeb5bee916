"""Ray, Spark and DuckDB for real, on this machine, in an environment of their own: ``make test-cluster``.

PAIRWIRE_CLUSTER_PYTHON is the Python of an environment with the extras [cpu], [ray], [spark] and [duckdb].
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairwire.batch import Scorer
from tests.batch.conftest import QUICK
from tests.cluster.killed_actors import FATAL_ROWS
from tests.server import toy_packages
from tests.shared import Shared

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PAIRWIRE_CLUSTER_PYTHON", "")
ROWS = 1000
WORDS = ("tide", "moon", "sea", "bread", "flour", "a", "b", "the", "what", "is")

pytestmark = pytest.mark.timeout(600)


@functools.cache
def _has(module: str) -> bool:
    return subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def _need(module: str) -> None:
    if not PYTHON:
        pytest.skip("PAIRWIRE_CLUSTER_PYTHON is not set: `make test-cluster` makes that environment")
    if not _has(module):
        pytest.skip(f"{module} is not installed in the environment of {PYTHON}")


def _run(module: str, *arguments: Path | str) -> str:
    # Tokens would be written to the home directory.
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [PYTHON, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def _free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.fixture(scope="module")
def package(shared: Shared) -> Path:
    return shared.directory("package/toy-scorer", toy_packages.write_cross_encoder)


@pytest.fixture(scope="module")
def embedder(shared: Shared) -> Path:
    return shared.directory("package/toy-embedder", toy_packages.write_bi_encoder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [" ".join(WORDS[(row * step) % 10] for step in range(1, 2 + row % 9)) for row in range(ROWS)]
    path = tmp_path_factory.mktemp("pairs") / "in.parquet"
    pq.write_table(pa.table({"id": range(ROWS), "first": texts, "second": texts[::-1]}), path, row_group_size=100)
    return path


@pytest.fixture(scope="module")
def expected(package: Path, pairs: Path) -> list[float]:
    with Scorer(package, engine=QUICK) as scorer:
        return scorer(pq.read_table(pairs))["score"].to_pylist()


def _check(directory: Path, expected: list[float]) -> None:
    """Every row is there once, with its own score."""
    table = pq.read_table(directory).sort_by("id")
    assert table["id"].to_pylist() == list(range(ROWS))
    assert table["score"].to_pylist() == pytest.approx(expected, abs=1e-4)


def test_ray_loses_no_row_and_doubles_none_when_actors_are_killed(
    package: Path, pairs: Path, expected: list[float], tmp_path: Path
) -> None:
    _need("ray")
    (tmp_path / "marks").mkdir()
    _run("tests.cluster.killed_actors", package, pairs, tmp_path / "out", tmp_path / "marks")
    assert sorted(int(mark.name) for mark in (tmp_path / "marks").iterdir()) == sorted(FATAL_ROWS), "nobody was killed"
    _check(tmp_path / "out", expected)


def test_the_search_on_ray(package: Path, embedder: Path, tmp_path: Path) -> None:
    _need("ray")
    texts = [f"{WORDS[row % 10]} {WORDS[row // 10]}" for row in range(100)]
    pq.write_table(pa.table({"id": range(100), "text": texts}), tmp_path / "corpus.parquet")
    pq.write_table(pa.table({"text": ["tide moon", "bread flour"]}), tmp_path / "queries.parquet")
    files = ("--corpus", tmp_path / "corpus.parquet", "--queries", tmp_path / "queries.parquet")
    rest = ("-o", tmp_path / "found", "--checkpoint", tmp_path / "checkpoint", "--keep", "5")
    out = _run("examples.fleet.ray_search", "--embedder", embedder, "--reranker", package, *files, *rest)
    assert [line.split("\t")[0] for line in out.splitlines()] == ["tide moon", "bread flour"]
    vectors = pq.read_table(tmp_path / "found" / "vectors")
    assert sorted(vectors["id"].to_pylist()) == list(range(100))
    assert vectors.schema.field("embedding").type.value_type == pa.float32()


def test_the_shipped_client_works_against_ray_serve(package: Path) -> None:
    _need("ray")
    ports = ("--port", _free_port(), "--http-port", _free_port())
    out = _run("tests.cluster.served", package, *ports)
    assert "everything answered" in out


def test_spark(package: Path, pairs: Path, expected: list[float], tmp_path: Path) -> None:
    _need("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    out = _run(
        "examples.fleet.spark_score", pairs, "-o", tmp_path / "out", "--package", package, "--master", "local[2]"
    )
    assert f"{ROWS} rows" in out
    _check(tmp_path / "out", expected)


def test_duckdb(package: Path, pairs: Path, expected: list[float]) -> None:
    _need("duckdb")
    found = [
        float(line.split("\t")[0])
        for line in _run("examples.fleet.duckdb_score", pairs, "--package", package).splitlines()
    ]
    assert found == pytest.approx(sorted(expected, reverse=True)[:10], abs=1e-3)
