"""The clients against `pairwire serve` with real packages, and beside sentence-transformers on the same checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pairwire.cli.server_process import ServerProcess
from pairwire.client import AsyncClient, Client, FirstStage, InvalidInput, ModelNotFound, WrongModelKind
from tests.checkpoints import PAIRS, TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(cross_encoder_package: Path, bi_encoder_package: Path) -> Iterator[str]:
    with ServerProcess.serve([cross_encoder_package, bi_encoder_package], "--metrics-port=-1") as server:
        with Client(server.address) as client:
            client.wait_until_ready()
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as found:
        yield found


@pytest.fixture(scope="module")
def original(cross_encoder_checkpoint: Path) -> object:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(cross_encoder_checkpoint), device="cpu")


def test_predict_is_what_sentence_transformers_predicts(client: Client, original) -> None:  # type: ignore[no-untyped-def]
    pairs = [[first, second] for first in TEXTS for second in TEXTS] + [["", ""], ["a" * 3000, "b " * 3000]]
    expected = original.predict(pairs)
    found = client.cross_encoder("tiny-cross-encoder").predict(pairs)
    assert isinstance(found, np.ndarray)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found) > 0.01  # or any constant would pass


def test_predict_of_one_pair_is_what_sentence_transformers_predicts(client: Client, original) -> None:  # type: ignore[no-untyped-def]
    expected = original.predict(PAIRS[0])
    found = client.cross_encoder().predict(PAIRS[0])
    assert type(found) is type(expected)
    assert found == pytest.approx(expected, abs=1e-4)


def test_raw_logits_are_what_sentence_transformers_gives(client: Client, original) -> None:  # type: ignore[no-untyped-def]
    from torch import nn

    expected = original.predict(list(PAIRS), activation_fn=nn.Identity())
    found = client.cross_encoder().predict(list(PAIRS), activation_fn=nn.Identity())
    assert found == pytest.approx(expected, abs=1e-3)


def test_rank_is_what_sentence_transformers_ranks(client: Client, original) -> None:  # type: ignore[no-untyped-def]
    for top_k, return_documents in ((None, False), (4, True)):
        expected = original.rank(TEXTS[2], list(TEXTS), top_k=top_k, return_documents=return_documents)
        found = client.cross_encoder().rank(TEXTS[2], list(TEXTS), top_k=top_k, return_documents=return_documents)
        assert [set(entry) for entry in found] == [set(entry) for entry in expected]
        assert [entry["corpus_id"] for entry in found] == [entry["corpus_id"] for entry in expected]
        assert [entry.get("text") for entry in found] == [entry.get("text") for entry in expected]
        assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in expected], abs=1e-4)
        assert {type(entry["score"]) for entry in found} == {type(entry["score"]) for entry in expected}


def test_encode_is_what_sentence_transformers_encodes(client: Client, bi_encoder_checkpoint: Path) -> None:
    from sentence_transformers import SentenceTransformer

    original = SentenceTransformer(str(bi_encoder_checkpoint), device="cpu")
    model = client.sentence_encoder("tiny-bi-encoder")
    for texts in (list(TEXTS), TEXTS[0]):
        expected = original.encode(texts)
        found = model.encode(texts)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found == pytest.approx(expected, abs=1e-4)


def test_three_ways_to_a_score_agree(client: Client) -> None:
    query, documents = TEXTS[2], list(TEXTS)
    scored = client.score_documents(query, documents).scores
    assert client.score([(query, document) for document in documents]).scores == pytest.approx(scored, abs=1e-6)
    for found in client.rerank(query, documents):
        assert found.score == pytest.approx(scored[found.index], abs=1e-6)
        assert found.document == documents[found.index]


def test_a_first_stage_finds_and_scores_as_sentence_transformers_does(  # type: ignore[no-untyped-def]
    client: Client, original, bi_encoder_checkpoint: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    query, documents = TEXTS[2], list(TEXTS)
    retriever = SentenceTransformer(str(bi_encoder_checkpoint), device="cpu")
    near = retriever.similarity(retriever.encode_query([query]), retriever.encode_document(documents))[0].numpy()
    fourth = np.sort(near)[-4]
    for cached in (0, len(documents)):
        found = client.rerank(query, documents, first_stage=FirstStage(keep=4))
        assert found.first_stage is not None
        assert (found.first_stage.model, found.first_stage.cached) == ("tiny-bi-encoder", cached)
        assert len(found) == 4
        assert min(near[document.index] for document in found) >= fourth - 1e-4
        for document in found:
            assert document.first_stage_score == pytest.approx(near[document.index], abs=1e-4)
            assert document.score == pytest.approx(original.predict([query, documents[document.index]]), abs=1e-4)
    assert np.ptp(near) > 0.01  # or any would be as near


def test_a_large_input_is_scored_in_order(client: Client) -> None:
    pairs = [(TEXTS[index % 10], TEXTS[index % 7]) for index in range(1000)]
    result = client.score(pairs)
    assert result.timing.requests == 4
    again = client.score(pairs[700:703]).scores
    assert result.scores[700:703] == pytest.approx(again, abs=1e-6)
    assert result.usage.tokens > 1000


async def test_many_calls_at_once_get_their_own_answers(address: str) -> None:
    async with AsyncClient(address) as client:
        await client.wait_until_ready()
        calls = [client.score([(text, other)]) for text in TEXTS for other in TEXTS]
        found = np.concatenate([result.scores for result in await asyncio.gather(*calls)])
        together = await client.score([(text, other) for text in TEXTS for other in TEXTS])
    assert found == pytest.approx(together.scores, abs=1e-5)


def test_truncated_inputs_are_told_by_their_place_in_the_whole(client: Client) -> None:
    pairs = [("a", "b")] * 300
    pairs[3] = pairs[280] = ("a", "word " * 3000)
    assert client.score(pairs).usage.truncated_inputs == (3, 280)


def test_errors_of_the_server_arrive_as_ours(client: Client) -> None:
    pairs = [("a", "b")] * 300
    pairs[270] = ("a", "word " * 3000)
    with pytest.raises(InvalidInput, match="tokens") as caught:
        client.score(pairs, truncation="error")
    assert caught.value.field == "pairs[270].second"
    with pytest.raises(ModelNotFound, match="'other'"):
        client.score(PAIRS, model="other")
    with pytest.raises(WrongModelKind, match="tiny-bi-encoder"):
        client.score(PAIRS, model="tiny-bi-encoder")
    with pytest.raises(InvalidInput, match="prompt_name"):
        client.embed(["a"], prompt_name="no such")
    assert len(client.score(PAIRS)) == len(PAIRS)


def test_models_are_told_with_their_manifests(client: Client) -> None:
    assert [(model.name, model.kind) for model in client.models()] == [
        ("tiny-bi-encoder", "bi-encoder"),
        ("tiny-cross-encoder", "cross-encoder"),
    ]
    details = client.model("tiny-bi-encoder")
    assert details.manifest.dimensions == 32
    assert details.model.variant == "cpu-fp32"
