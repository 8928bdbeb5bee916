"""Who counts as one caller, and that a crowd of calls is answered, not cancelled unseen."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from pathlib import Path

import grpc
import pytest

from pairwire.server.config import CallerConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.engine.batching import callers
from pairwire.server.errors import ConfigInvalid
from pairwire.server.rpc.caller import caller, host_of
from pairwire.v1 import embedding_pb2, scoring_pb2
from tests.server import serving
from tests.server.engine import toys


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:41234", "::1"),
        ("ipv6:[fe80::1]:9", "fe80::1"),
        ("unix:/run/pairwire.sock", "unix:/run/pairwire.sock"),
        ("unix:" + "x" * 500, "unix:" + "x" * 123),
        ("", ""),
    ],
)
def test_connections_of_one_host_are_one_caller(peer: str, host: str) -> None:
    assert host_of(peer) == host


@pytest.mark.parametrize(
    ("key", "metadata", "name"),
    [
        ("", (("x-tenant", "a"),), "peer:127.0.0.1"),
        ("x-tenant", (("x-tenant", "a"),), "key:a"),
        ("x-tenant", (("x-tenant", "a"), ("x-tenant", "b")), "key:a"),
        ("x-tenant", (("x-other", "a"),), "peer:127.0.0.1"),
        ("x-tenant", (("x-tenant", "a" * 500),), "key:" + "a" * 124),
        ("x-tenant-bin", (("x-tenant-bin", b"\xff"),), "key:ff"),
    ],
)
@pytest.mark.parametrize("rpc", ["score", "rerank", "embed"])
async def test_a_call_is_charged_to_who_makes_it(
    key: str, metadata: tuple[tuple[str, str]], name: str, rpc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[str]()
    begin = callers.Callers.begin

    def watched(self: callers.Callers[object], queued: object, seconds: float) -> None:
        seen[queued.caller] += 1  # type: ignore[attr-defined]  # a request
        begin(self, queued, seconds)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(callers.Callers, "begin", watched)
    settings = dataclasses.replace(serving.config(), callers=CallerConfig(caller_key=key))
    models = [toys.toy_model(), toys.toy_model(manifest=toys.bi_encoder_manifest())]
    async with serving.serve(settings=settings, models=lambda: models) as served:
        texts = scoring_pb2.TextPairs(pairs=[scoring_pb2.TextPair(first="the", second="fox")])
        if rpc == "score":
            await served.scoring.Score(scoring_pb2.ScoreRequest(text_pairs=texts), metadata=metadata)
        elif rpc == "rerank":
            await served.scoring.Rerank(scoring_pb2.RerankRequest(query="the", documents=["fox"]), metadata=metadata)
        else:
            await served.embedding.Embed(embedding_pb2.EmbedRequest(texts=["fox"]), metadata=metadata)
    assert seen == {name: 1}
    assert caller() == ""


async def test_a_crowd_of_calls_is_answered_or_refused_with_a_reason_and_counted(scorer_package: Path) -> None:
    calls = 3000
    async with serving.serve(scorer_package) as served:
        request = scoring_pb2.ScoreRequest(
            text_pairs=scoring_pb2.TextPairs(pairs=[scoring_pb2.TextPair(first="the", second="fox")])
        )

        async def call() -> str:
            try:
                await served.scoring.Score(request)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        codes = Counter(await asyncio.gather(*(call() for _ in range(calls))))
        counted = [
            sample.value
            for metric in served.application.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "pairwire_requests_total" and sample.labels["code"] in ("OK", "RESOURCE_EXHAUSTED")
        ]
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert codes.total() == sum(counted) == calls


@pytest.mark.parametrize("key", ["X-Tenant", "x tenant", "ä"])
def test_a_caller_key_that_metadata_cannot_have_is_refused(key: str) -> None:
    with pytest.raises(ConfigInvalid, match="caller_key"):
        CallerConfig(caller_key=key)


def test_weights_are_read_and_what_is_none_is_refused() -> None:
    assert EngineConfig(caller_weights=("key:a=2", "peer:10.0.0.1=0.5")).weights() == {"key:a": 2, "peer:10.0.0.1": 0.5}
    for wrong in ("key:a", "key:a=0", "key:a=-1", "key:a=inf", "key:a=nan", "=2", "key:a=x"):
        with pytest.raises(ConfigInvalid, match="caller_weights"):
            EngineConfig(caller_weights=(wrong,))
