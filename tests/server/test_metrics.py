"""Every series, its labels, and what feeds it."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pairwire.server.endpoint import MetricsEndpoint
from pairwire.server.engine import BatchEvent, Engine, FirstStage, ModelKind, Outcome, RequestEvent
from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.errors import ConfigInvalid
from pairwire.server.metrics import MOST_CALLERS, TABLE, Metrics
from pairwire.v1 import manifest_pb2, scoring_pb2
from tests.server import serving
from tests.server.engine import toys

REQUEST = RequestEvent(
    model="m",
    kind=ModelKind.CROSS_ENCODER,
    rows=3,
    tokens=30,
    outcome=Outcome.OK,
    queue_s=0.25,
    tokenize_s=0.5,
    compute_s=1.0,
)
BATCH = BatchEvent(
    model="m", bucket=Bucket(4, 16), rows=3, useful_tokens=30, computed_tokens=64, started_s=0.0, seconds=0.125
)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    sparse = toys.bi_encoder_manifest("toy-splade", dimensions=30)
    sparse.kind = manifest_pb2.MODEL_KIND_SPARSE_ENCODER
    manifests = (toys.cross_encoder_manifest(), toys.bi_encoder_manifest(), sparse)
    async with Engine([toys.toy_model(manifest=manifest) for manifest in manifests]) as engine:
        yield engine


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_every_series_of_the_table_is_shown_and_no_other(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    shown = {
        family.name: family for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
    }
    ours = {name: family for name, family in shown.items() if not name.startswith("process_")}
    assert {name: family.type for name, family in ours.items()} == {series.name: series.kind for series in TABLE}
    assert {name: family.documentation for name, family in ours.items()} == {each.name: each.help for each in TABLE}


async def test_requests_are_counted_by_rpc_model_and_code(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    metrics.rpc_finished("Score", "toy", "OK", 0.02)
    metrics.rpc_finished("Score", "toy", "OK", 0.03)
    metrics.rpc_finished("Score", "toy", "UNAVAILABLE", 0.0)
    assert value(metrics, "pairwire_requests_total", rpc="Score", model="toy", code="OK") == 2
    assert value(metrics, "pairwire_requests_total", rpc="Score", model="toy", code="UNAVAILABLE") == 1
    assert value(metrics, "pairwire_request_seconds_sum", rpc="Score", model="toy") == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("rpc", "asked", "label"),
    [
        ("Score", "", "toy"),
        ("Rerank", "", "toy"),
        ("Embed", "", "toy-embedder"),
        ("Embed", "toy", "toy"),
        ("EmbedSparse", "", "toy-splade"),
        ("GetModel", "", ""),
        ("ListModels", "", ""),
        ("Score", "whatever a client sends", "unknown"),
    ],
)
async def test_a_model_label_is_a_loaded_model_or_one_of_two_fixed_words(
    rpc: str, asked: str, label: str, engine: Engine
) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    metrics.rpc_finished(rpc, asked, "OK", 0.0)
    assert value(metrics, "pairwire_requests_total", rpc=rpc, model=label, code="OK") == 1


async def test_names_that_clients_make_up_add_no_series(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    metrics.rpc_finished("Score", "first", "NOT_FOUND", 0.0)
    before = len(generate_latest(metrics.registry).splitlines())
    for number in range(100):
        metrics.rpc_finished("Score", f"made up {number}", "NOT_FOUND", 0.0)
    assert len(generate_latest(metrics.registry).splitlines()) == before


def test_the_time_of_answered_requests_is_split_into_stages() -> None:
    metrics = Metrics()
    metrics.request_finished(REQUEST)
    stages = {
        stage: value(metrics, "pairwire_stage_seconds_sum", model="m", stage=stage)
        for stage in ("queue", "tokenize", "compute")
    }
    assert stages == {"queue": 0.25, "tokenize": 0.5, "compute": 1.0}
    assert value(metrics, "pairwire_rows_total", model="m") == 3


def test_requests_that_failed_do_not_distort_the_stages() -> None:
    metrics = Metrics()
    failed = RequestEvent(
        model="m",
        kind=ModelKind.CROSS_ENCODER,
        rows=3,
        tokens=0,
        outcome=Outcome.OVERLOADED,
        queue_s=9.0,
        tokenize_s=9.0,
        compute_s=9.0,
    )
    metrics.request_finished(failed)
    assert value(metrics, "pairwire_stage_seconds_count", model="m", stage="queue") is None
    assert value(metrics, "pairwire_rows_total", model="m") is None


@pytest.mark.parametrize(
    ("outcome", "refused", "name", "labels"),
    [
        (Outcome.OVERLOADED, False, "pairwire_shed_total", {"reason": "queue"}),
        (Outcome.DEADLINE, True, "pairwire_shed_total", {"reason": "deadline"}),
        (Outcome.DEADLINE, False, "pairwire_expired_total", {}),
        (Outcome.CANCELLED, False, "pairwire_cancelled_total", {}),
    ],
)
def test_what_is_not_answered_is_counted_by_caller(
    outcome: Outcome, refused: bool, name: str, labels: dict[str, str]
) -> None:
    metrics = Metrics()
    metrics.request_finished(replace(REQUEST, outcome=outcome, refused=refused, caller="key:a"))
    assert value(metrics, name, model="m", caller="key:a", **labels) == 1
    assert value(metrics, "pairwire_rows_total", model="m") is None


def test_however_many_callers_there_are_the_labels_are_few() -> None:
    metrics = Metrics(["key:weighty"])
    for number in range(1000):
        event = replace(REQUEST, outcome=Outcome.OVERLOADED, caller=f"key:{number}")
        metrics.request_finished(event)
    metrics.request_finished(replace(REQUEST, outcome=Outcome.OVERLOADED, caller="key:weighty"))
    shed = [line for line in generate_latest(metrics.registry).splitlines() if line.startswith(b"pairwire_shed_total{")]
    assert len(shed) == MOST_CALLERS + 2
    assert value(metrics, "pairwire_shed_total", model="m", caller="other", reason="queue") == 1000 - MOST_CALLERS
    assert value(metrics, "pairwire_shed_total", model="m", caller="key:weighty", reason="queue") == 1


def test_documents_without_a_score_are_counted_apart() -> None:
    metrics = Metrics()
    metrics.request_finished(replace(REQUEST, unscored=2))
    assert value(metrics, "pairwire_rows_total", model="m") == 1
    assert value(metrics, "pairwire_unscored_rows_total", model="m") == 2


def test_batches_tell_their_fill_and_their_padding() -> None:
    metrics = Metrics()
    metrics.batch_finished(BATCH)
    metrics.batch_finished(BATCH)
    assert value(metrics, "pairwire_batch_rows_sum", model="m") == 6
    assert value(metrics, "pairwire_batch_slots_total", model="m") == 8
    assert value(metrics, "pairwire_useful_tokens_total", model="m") == 60
    assert value(metrics, "pairwire_computed_tokens_total", model="m") == 128
    assert value(metrics, "pairwire_batch_seconds_sum", model="m") == 0.25


async def test_gauges_are_read_at_each_scrape(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    assert value(metrics, "pairwire_queue_tokens") == 0
    assert value(metrics, "pairwire_queue_limit_tokens") == engine.statistics().queue_limit_tokens
    assert value(metrics, "pairwire_model_healthy", model="toy") == 1
    assert value(metrics, "pairwire_open_requests") == 0


async def test_what_the_caches_spare_is_counted(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    await engine.score([("a", "b"), ("a", "b"), ("a", "c")])
    await engine.score([("a", "d")])
    assert value(metrics, "pairwire_shared_rows_total", model="toy") == 1
    assert value(metrics, "pairwire_token_cache_misses_total", model="toy") == 4
    assert value(metrics, "pairwire_token_cache_hits_total", model="toy") == 1
    assert value(metrics, "pairwire_token_cache_bytes", model="toy") == (
        engine.statistics().models["toy"].token_cache.bytes
    )
    assert value(metrics, "pairwire_token_cache_bytes", model="toy-embedder") == 0
    assert value(metrics, "pairwire_score_cache_hits_total") == 0


async def test_what_the_cache_of_vectors_spares_is_counted_for_bi_encoders_alone(engine: Engine) -> None:
    metrics = Metrics()
    metrics.watch(engine.models.values(), engine.statistics)
    for documents in (["a", "b"], ["b", "c", "d"]):
        await engine.retrieve_and_rerank("q", documents, first_stage=FirstStage(keep=1))
    statistics = engine.statistics().models["toy-embedder"].vector_cache
    assert statistics is not None
    assert value(metrics, "pairwire_vector_cache_misses_total", model="toy-embedder") == 4
    assert value(metrics, "pairwire_vector_cache_hits_total", model="toy-embedder") == 1
    assert value(metrics, "pairwire_vector_cache_bytes", model="toy-embedder") == statistics.bytes > 0
    assert value(metrics, "pairwire_vector_cache_bytes", model="toy") is None


def test_the_endpoint_answers_on_a_port_of_its_own_and_closes() -> None:
    metrics = Metrics()
    endpoint = MetricsEndpoint(metrics.registry, "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as answer:
        assert b"process_resident_memory_bytes" in answer.read()
    endpoint.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", endpoint.port)) != 0


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigInvalid, match=f"metrics_port: cannot listen on 127.0.0.1:{port}"):
            MetricsEndpoint(Metrics().registry, "127.0.0.1", port)


async def test_a_served_request_is_in_the_metrics_with_its_stages_and_its_batch(scorer: serving.Served) -> None:
    await scorer.scoring.Rerank(scoring_pb2.RerankRequest(query="q", documents=["a", "b"]))
    metrics = scorer.application.metrics
    assert value(metrics, "pairwire_requests_total", rpc="Rerank", model="scorer", code="OK") == 1
    assert value(metrics, "pairwire_rows_total", model="scorer") == 2
    assert value(metrics, "pairwire_stage_seconds_count", model="scorer", stage="compute") == 1
    assert value(metrics, "pairwire_batch_rows_sum", model="scorer") == 2


async def test_an_unreadable_request_is_counted_too(scorer: serving.Served) -> None:
    call = scorer.channel.unary_unary("/pairwire.v1.ScoringService/Score")(b"\xff" * 5)
    await call.code()
    metrics = scorer.application.metrics
    assert value(metrics, "pairwire_requests_total", rpc="Score", model="scorer", code="INVALID_ARGUMENT") == 1
