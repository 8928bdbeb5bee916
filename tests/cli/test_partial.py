"""`pairwire rerank --partial-ok`."""

from __future__ import annotations

import json

from pairwire.v1 import scoring_pb2
from tests.cli.conftest import Run
from tests.client.fake_server import FakeServer


def test_what_has_no_score_comes_last_and_stderr_says_why(remote: Run, server: FakeServer) -> None:
    server.script.answer = scoring_pb2.RerankResponse(
        results=[
            scoring_pb2.RankedDocument(index=1, score=0.5),
            scoring_pb2.RankedDocument(index=0, unscored=scoring_pb2.UNSCORED_OVERLOADED),
        ],
        unscored=1,
        unscored_reason="the queue is full",
    )
    done = remote("rerank", "q", "a", "b", "--partial-ok")
    assert done.code == 0
    assert done.lines == ["1\t0.500000\t1\tb", "2\t-\t0\ta"]
    assert done.err == "pairwire: documents without a score: 1 (the queue is full)\n"
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.RerankRequest)
    assert request.partial_ok
    (scored, unscored) = json.loads(remote("rerank", "q", "a", "b", "--partial-ok", "--json").out)["results"]
    assert scored == {"index": 1, "score": 0.5, "document": "b"}
    assert unscored == {"index": 0, "score": None, "unscored": "overloaded", "document": "a"}


def test_it_is_asked_for_only_where_that_is_said(remote: Run, server: FakeServer) -> None:
    remote("rerank", "q", "a", "b")
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.RerankRequest)
    assert not request.partial_ok
