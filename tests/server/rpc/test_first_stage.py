"""Rerank with a first stage over the wire: the engine's own numbers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from pairwire.server.engine import FirstStage
from pairwire.v1 import scoring_pb2
from tests.server import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = "how do I bake bread"
DOCUMENTS = ["mix flour and water", "the dog runs", "", "bake the bread", "the dog runs", "prices rose", "bread " * 80]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(scorer_package: Path, embedder_package: Path) -> AsyncIterator[serving.Served]:
    async with serving.serve(scorer_package, embedder_package) as served:
        yield served


def request(keep: int, **fields: object) -> scoring_pb2.RerankRequest:
    stage = scoring_pb2.FirstStage(keep=keep)
    return scoring_pb2.RerankRequest(query=QUERY, documents=DOCUMENTS, first_stage=stage, **fields)


async def test_both_scores_are_the_engines_in_the_order_of_the_cross_encoder(served: serving.Served) -> None:
    response = await served.scoring.Rerank(request(5, return_documents=True))
    expected = await served.application.engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=FirstStage(keep=5))
    order = sorted(range(5), key=lambda at: (-expected.scores[at], at))
    assert [found.index for found in response.results] == expected.indices[order].tolist()
    assert [found.score for found in response.results] == expected.scores[order].tolist()
    np.testing.assert_allclose(
        [found.first_stage_score for found in response.results], expected.first_stage_scores[order], atol=1e-5
    )
    assert [found.document for found in response.results] == [DOCUMENTS[found.index] for found in response.results]
    assert response.model == "scorer"


async def test_the_report_tells_what_the_first_stage_did(served: serving.Served) -> None:
    documents = [f"{text} {number}" for number, text in enumerate(DOCUMENTS)]
    asked = scoring_pb2.RerankRequest(
        query=QUERY, documents=documents, first_stage=scoring_pb2.FirstStage(model="embedder", keep=3)
    )
    cold, warm = await served.scoring.Rerank(asked), await served.scoring.Rerank(asked)
    assert [(each.first_stage.model, each.first_stage.kept) for each in (cold, warm)] == [("embedder", 3)] * 2
    assert [each.first_stage.cached for each in (cold, warm)] == [0, len(documents)]
    assert list(cold.first_stage.usage.truncated_inputs) == [6]
    assert cold.first_stage.usage.tokens > warm.first_stage.usage.tokens > 0
    assert cold.first_stage.timing.compute_us > 0
    assert [found.index for found in cold.results] == [found.index for found in warm.results]
    assert warm.usage.tokens == cold.usage.tokens > 0


async def test_top_k_counts_what_is_kept_and_may_exceed_it(served: serving.Served) -> None:
    everything = list((await served.scoring.Rerank(request(4))).results)
    assert len(everything) == 4
    for top_k, count in ((1, 1), (4, 4), (100, 4)):
        response = await served.scoring.Rerank(request(4, top_k=top_k))
        assert [found.index for found in response.results] == [found.index for found in everything[:count]]
        assert not response.results[0].HasField("document")


async def test_without_a_first_stage_nothing_is_told_of_one(served: serving.Served) -> None:
    response = await served.scoring.Rerank(scoring_pb2.RerankRequest(query=QUERY, documents=DOCUMENTS))
    assert not response.HasField("first_stage")
    assert not any(found.HasField("first_stage_score") for found in response.results)


async def test_callers_who_leave_at_any_moment_leave_nothing_behind(
    served: serving.Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Some cancel, some have a deadline; by 0.1 ms later each, from before the first stage until after the second."""
    ended = set()
    engine = served.application.engine
    for number, deadline in itertools.product(range(60), (False, True)):
        documents = [f"{text} {number} {deadline}" for text in DOCUMENTS]
        asked = scoring_pb2.RerankRequest(query=QUERY, documents=documents, first_stage={"keep": 3})
        seconds = 1e-4 * (1 + number)
        call = served.scoring.Rerank(asked, timeout=seconds if deadline else serving.PATIENCE_S)
        if not deadline:
            asyncio.get_running_loop().call_later(seconds, call.cancel)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            ended.add(error.code())
        except asyncio.CancelledError:
            ended.add(grpc.StatusCode.CANCELLED)
    assert ended == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
    await serving.eventually(lambda: engine.statistics().open_requests == 0)
    assert (engine.statistics().queued_rows, engine.statistics().running_rows) == (0, 0)
    assert serving.logged(caplog.records) == []
    found = await served.scoring.Rerank(
        scoring_pb2.RerankRequest(query=QUERY, documents=documents, first_stage={"keep": 7})
    )
    fresh = await engine.embed([f"query: {QUERY}", *documents], model="embedder")
    query, *vectors = fresh.embeddings.astype(np.float64)
    for each in found.results:
        vector = vectors[each.index]
        cosine = query @ vector / np.linalg.norm(query) / np.linalg.norm(vector)
        assert each.first_stage_score == pytest.approx(cosine, abs=1e-5), "kept from a call that was left"
