"""The load test against a real server: what it counts adds up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load import build_requests
from benchmarks.protocols import CALLS
from pairwire.foreign import kserve_pb2, tei_pb2
from pairwire.server.cpus import usable_cpus
from pairwire.v1 import embedding_pb2, scoring_pb2

ROOT = Path(__file__).parent.parent.parent
PAIRS = [(f"question {at}", f"answer {at}") for at in range(10)]


def request_size(protocol: str, shape: str, request: bytes) -> int:
    """Pairs, documents or texts of a serialised request."""
    if protocol == "kserve":
        return int(kserve_pb2.ModelInferRequest.FromString(request).inputs[-1].shape[0])
    if protocol == "tei":
        return len(tei_pb2.RerankRequest.FromString(request).texts)
    if protocol == "http":
        body = json.loads(request)
        return len(body[{"score": "text_2", "rerank": "documents", "embed": "input"}[shape]])
    if shape == "score":
        return len(scoring_pb2.ScoreRequest.FromString(request).text_pairs.pairs)
    if shape == "rerank":
        return len(scoring_pb2.RerankRequest.FromString(request).documents)
    return len(embedding_pb2.EmbedRequest.FromString(request).texts)


@pytest.mark.parametrize(("protocol", "shape"), [each for each in CALLS if each != ("tei", "embed")])
def test_requests_hold_as_many_pairs_as_asked(protocol: str, shape: str) -> None:
    requests = build_requests(shape, PAIRS, 4, "m", protocol)
    sizes = [request_size(protocol, shape, request) for request in requests]
    assert sizes == [4, 4]  # the smaller rest would skew the figures
    whole = build_requests(shape, PAIRS, 32, "m", protocol)
    assert [request_size(protocol, shape, request) for request in whole] == [10]


def test_a_request_names_the_model_and_keeps_the_order() -> None:
    request = scoring_pb2.ScoreRequest.FromString(build_requests("score", PAIRS, 10, model="m")[0])
    assert request.model == "m"
    assert [(pair.first, pair.second) for pair in request.text_pairs.pairs] == PAIRS


@pytest.mark.slow
def test_closed_and_open_loop_measure_a_real_server(cross_encoder_package: Path, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.tsv", tmp_path / "rows.json"
    pairs.write_text("".join(f"{first}\t{second}\n" for first, second in PAIRS), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.load", "--package", str(cross_encoder_package), "--json", str(out)]
    load = ["--pairs-file", str(pairs), "--pairs", "2", "--concurrency", "3", "--rate", "40", "--processes", "2"]
    load += ["--protocol", "pairwire", "kserve", "tei", "http", "--shape", "rerank"]
    short = ["--duration", "1", "--warmup", "0.2", "--serve-option=--warmup-s=0.05"]
    done = subprocess.run([*command, *load, *short], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["protocol"] for row in rows] == ["pairwire", "kserve", "tei", "http"] * 2
    for row in rows:
        assert row["errors"] == "0"
        assert row["calls"] > 0
        assert row["p50_ms"] <= row["p99_ms"] <= row["p99_9_ms"]
        assert row["pairs_per_s"] > 0
        assert row["protocol"] == "kserve" or 0 <= row["padding"] < 1  # KServe's answers do not say
        assert row["server_ms_per_call"] > 0
    assert [row["load"] for row in rows] == ["3 in flight"] * 4 + ["40/s Poisson"] * 4


@pytest.mark.slow
@pytest.mark.skipif(usable_cpus() < 2, reason="two processes need two CPUs")
def test_a_server_of_several_processes_is_measured_over_several_connections(
    cross_encoder_package: Path, tmp_path: Path
) -> None:
    pairs, out = tmp_path / "pairs.tsv", tmp_path / "rows.json"
    pairs.write_text("".join(f"{first}\t{second}\n" for first, second in PAIRS), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.load", "--package", str(cross_encoder_package), "--json", str(out)]
    load = ["--pairs-file", str(pairs), "--concurrency", "4", "--connections", "4", "--server-processes", "2"]
    short = ["--duration", "1", "--warmup", "0.2", "--serve-option=--warmup-s=0.05"]
    done = subprocess.run([*command, *load, *short], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert (row["errors"], row["server_processes"], row["connections"]) == ("0", 2, 4)
    assert row["pairs_per_s"] > 0
    assert row["server_cpus"] > 0  # of the processes, for the supervisor hardly uses any
