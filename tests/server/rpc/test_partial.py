"""Rerank with partial_ok over the wire."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from pairwire.server.engine import EngineConfig
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import scoring_pb2
from tests.server import serving
from tests.server.engine import toys

DOCUMENTS = [f"flour {number}" for number in range(200)]
CONFIG = EngineConfig(workers=1, batch_tokens=64)


@dataclass
class Slow:
    """A server of a model whose runs wait for ``gate``, but for the first ``free`` ones."""

    served: serving.Served
    gate: threading.Event
    free: list[int]


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    gate, free, runs = threading.Event(), [0], [0]

    def wait(batch: TokenBatch) -> None:
        runs[0] += 1
        if runs[0] > free[0]:
            gate.wait()

    def models() -> list[object]:
        near = toys.toy_model(manifest=toys.bi_encoder_manifest())
        return [toys.toy_model(FakeRuntime(on_run=wait), config=CONFIG), near]

    async with serving.serve(settings=serving.config(engine=CONFIG), models=models) as served:  # type: ignore[arg-type]
        yield Slow(served, gate, free)
        gate.set()


def request(**fields: object) -> scoring_pb2.RerankRequest:
    return scoring_pb2.RerankRequest(query="bread", documents=DOCUMENTS, partial_ok=True, **fields)  # type: ignore[arg-type]


async def test_where_all_is_scored_the_answer_is_as_ever(slow: Slow) -> None:
    slow.gate.set()
    partial = await slow.served.scoring.Rerank(request(), timeout=60)
    plain = await slow.served.scoring.Rerank(scoring_pb2.RerankRequest(query="bread", documents=DOCUMENTS))
    assert partial.results == plain.results
    assert (partial.unscored, partial.unscored_reason) == (0, "")


async def test_what_is_scored_by_then_comes_in_time_and_the_rest_behind_it(slow: Slow) -> None:
    slow.free[0] = 3
    answer = await slow.served.scoring.Rerank(request(return_documents=True), timeout=1)
    scored = [found for found in answer.results if not found.unscored]
    rest = answer.results[len(scored) :]
    assert 0 < len(scored) < 200
    assert answer.unscored == len(rest) == 200 - len(scored)
    assert [found.score for found in scored] == sorted((found.score for found in scored), reverse=True)
    assert [found.index for found in rest] == sorted(found.index for found in rest)
    assert {(found.score, found.unscored) for found in rest} == {(0.0, scoring_pb2.UNSCORED_DEADLINE)}
    assert answer.unscored_reason == "the deadline came before they were scored"
    assert [found.document for found in answer.results] == [DOCUMENTS[found.index] for found in answer.results]


async def test_only_the_best_are_returned_and_all_that_is_unscored_is_counted(slow: Slow) -> None:
    answer = await slow.served.scoring.Rerank(request(top_k=2), timeout=0.5)
    assert [(found.index, found.unscored) for found in answer.results] == [
        (0, scoring_pb2.UNSCORED_DEADLINE),
        (1, scoring_pb2.UNSCORED_DEADLINE),
    ]
    assert answer.unscored == 200


async def test_with_a_first_stage_what_has_no_score_is_in_its_order(slow: Slow) -> None:
    stage = scoring_pb2.FirstStage(keep=50)
    answer = await slow.served.scoring.Rerank(request(first_stage=stage), timeout=1)
    assert len(answer.results) == answer.first_stage.kept == answer.unscored == 50
    similarities = [found.first_stage_score for found in answer.results]
    assert similarities == sorted(similarities, reverse=True)
    assert all(found.HasField("first_stage_score") for found in answer.results)
