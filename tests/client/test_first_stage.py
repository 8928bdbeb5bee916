"""Rerank with a first stage: one request whatever its size, both scores, and servers that know nothing of it."""

from __future__ import annotations

import pytest

from pairwire.client import FirstStage, InvalidInput, NotSupported, RerankResult, ServerFault, SplitLimits
from pairwire.v1 import scoring_pb2
from tests.client.conftest import Connect, EitherClient
from tests.client.fake_server import FakeServer, score_of

QUERY = "a query"
DOCUMENTS = [f"document {'x' * (number * 7 % 11)} {number}" for number in range(11)]


async def test_it_is_one_request_although_there_are_more_documents_than_a_part_has(
    client: EitherClient, server: FakeServer
) -> None:
    stage = FirstStage(model="near", keep=6, query_prompt_name="q", document_prompt_name="")
    result = await client.call("rerank", QUERY, DOCUMENTS, first_stage=stage, top_k=3)
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.RerankRequest)
    assert list(request.documents) == DOCUMENTS
    assert request.first_stage == scoring_pb2.FirstStage(
        model="near", keep=6, query_prompt_name="q", document_prompt_name=""
    )
    shortest = sorted(range(11), key=lambda index: (len(DOCUMENTS[index]), index))[:6]
    best = sorted(shortest, key=lambda index: -score_of(QUERY, DOCUMENTS[index]))[:3]
    assert [found.index for found in result] == best
    assert [found.first_stage_score for found in result] == [-float(len(DOCUMENTS[index])) for index in best]
    assert [found.document for found in result] == [DOCUMENTS[index] for index in best]


async def test_the_report_of_the_first_stage_is_told(client: EitherClient) -> None:
    result = await client.call("rerank", QUERY, DOCUMENTS, first_stage=FirstStage(keep=20))
    assert isinstance(result, RerankResult)
    assert len(result) == 11
    report = result.first_stage
    assert report is not None
    assert (report.model, report.kept, report.cached) == ("", 11, 1)
    assert (report.usage.tokens, report.timing.compute_s) == (20, 0.003)


async def test_what_is_not_set_does_not_travel(client: EitherClient, server: FakeServer) -> None:
    await client.call("rerank", QUERY, DOCUMENTS, first_stage=FirstStage())
    plain = await client.call("rerank", QUERY, DOCUMENTS[:3])
    staged, unstaged = server.script.requests
    assert isinstance(staged, scoring_pb2.RerankRequest)
    assert isinstance(unstaged, scoring_pb2.RerankRequest)
    assert staged.first_stage == scoring_pb2.FirstStage(keep=100)
    assert not unstaged.HasField("first_stage")
    assert plain.first_stage is None
    assert {found.first_stage_score for found in plain} == {None}


async def test_what_does_not_fit_into_one_request_is_refused_and_nothing_is_sent(
    connect: Connect, server: FakeServer
) -> None:
    client = await connect(server.address, split=SplitLimits(max_bytes=100))
    with pytest.raises(
        InvalidInput, match=r"all documents go in one request.*100 bytes.*raise .*split\.max_bytes"
    ) as caught:
        await client.call("rerank", QUERY, DOCUMENTS, first_stage=FirstStage())
    assert caught.value.field.startswith("documents[")
    assert server.script.requests == []
    assert len(await client.call("rerank", QUERY, DOCUMENTS)) == 11


async def test_a_server_that_leaves_it_out_is_told_apart(client: EitherClient, server: FakeServer) -> None:
    server.script.older = True
    with pytest.raises(NotSupported, match="without the first stage that was asked for"):
        await client.call("rerank", QUERY, DOCUMENTS, first_stage=FirstStage(keep=3))


async def test_an_answer_that_keeps_another_number_is_the_servers_fault(
    client: EitherClient, server: FakeServer
) -> None:
    server.script.answer = scoring_pb2.RerankResponse(
        results=[scoring_pb2.RankedDocument(index=index) for index in range(4)],
        first_stage=scoring_pb2.FirstStageReport(kept=4),
    )
    with pytest.raises(ServerFault, match="3 were asked for"):
        await client.call("rerank", QUERY, DOCUMENTS, first_stage=FirstStage(keep=3))


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"keep": 0}, "first_stage.keep"),
        ({"keep": None}, "first_stage.keep"),
        ({"keep": 2.5}, "first_stage.keep"),
        ({"model": None}, "first_stage.model"),
        ({"query_prompt_name": 3}, "first_stage.query_prompt_name"),
        ({"document_prompt_name": "\ud800"}, "first_stage.document_prompt_name"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(fields: dict[str, object], culprit: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FirstStage(**fields)  # type: ignore[arg-type]  # anything
    assert caught.value.field == culprit
