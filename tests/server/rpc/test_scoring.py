"""Answers over the wire are the engine's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from pairwire.server.engine import Activation, ClassifyOptions, ScoreOptions
from pairwire.v1 import manifest_pb2, model_pb2, scoring_pb2
from tests.server import serving, toy_packages
from tests.server.engine import toys

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = "how do I bake bread"
DOCUMENTS = ["mix flour and water", "the dog runs", "", "bake the bread", "the dog runs"]
IDENTITY = ScoreOptions(activation=Activation.IDENTITY)
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    scorer_package: Path, classifier_package: Path, embedder_package: Path, nli_package: Path
) -> AsyncIterator[serving.Served]:
    async with serving.serve(scorer_package, classifier_package, embedder_package, nli_package) as served:
        yield served


async def test_pairs_and_query_with_documents_give_the_engines_scores(served: serving.Served) -> None:
    expected = await served.application.engine.score(PAIRS, model="scorer")
    pairs = scoring_pb2.TextPairs(pairs=[scoring_pb2.TextPair(first=a, second=b) for a, b in PAIRS])
    documents = scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS)
    for request in (
        scoring_pb2.ScoreRequest(model="scorer", text_pairs=pairs),
        scoring_pb2.ScoreRequest(model="scorer", query_documents=documents),
    ):
        response = await served.scoring.Score(request)
        np.testing.assert_array_equal(np.array(response.scores, np.float32), expected.scores[:, 0])
        assert list(response.labels) == ["LABEL_0"]
        assert response.model == "scorer"
        assert response.usage.tokens == expected.usage.tokens


async def test_several_labels_come_row_by_row(served: serving.Served) -> None:
    expected = await served.application.engine.score(PAIRS, model="classifier")
    documents = scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS)
    response = await served.scoring.Score(scoring_pb2.ScoreRequest(model="classifier", query_documents=documents))
    assert list(response.labels) == ["no", "maybe", "yes"]
    np.testing.assert_array_equal(np.array(response.scores, np.float32).reshape(-1, 3), expected.scores)


async def test_an_activation_can_be_asked_for(served: serving.Served) -> None:
    documents = scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS)
    response = await served.scoring.Score(
        scoring_pb2.ScoreRequest(
            model="classifier", query_documents=documents, activation=scoring_pb2.ACTIVATION_SOFTMAX
        )
    )
    np.testing.assert_allclose(np.array(response.scores).reshape(-1, 3).sum(axis=1), 1, rtol=1e-6)


async def test_documents_come_sorted_with_ties_in_input_order(served: serving.Served) -> None:
    scores = (await served.application.engine.score(PAIRS, model="scorer")).scores[:, 0]
    response = await served.scoring.Rerank(
        scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS, return_documents=True)
    )
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    assert [result.index for result in response.results] == expected
    assert [result.score for result in response.results] == [scores[index] for index in expected]
    assert [result.document for result in response.results] == [DOCUMENTS[index] for index in expected]
    assert scores[1] == scores[4], "the table of documents has a tie"


async def test_the_best_can_be_asked_for_alone(served: serving.Served) -> None:
    everything = await served.scoring.Rerank(
        scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS)
    )
    for top_k, count in ((1, 1), (2, 2), (100, len(DOCUMENTS))):
        response = await served.scoring.Rerank(
            scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS, top_k=top_k)
        )
        assert list(response.results) == list(everything.results)[:count]
        assert not response.results[0].HasField("document")


async def test_documents_below_a_score_can_be_left_out(served: serving.Served) -> None:
    ask = scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS)
    everything = list((await served.scoring.Rerank(ask)).results)
    least = everything[2].score
    ask.min_score = least
    expected = [result for result in everything if result.score >= least]
    assert list((await served.scoring.Rerank(ask)).results) == expected
    assert 0 < len(expected) < len(everything)
    ask.min_score = float("inf")
    assert not (await served.scoring.Rerank(ask)).results


async def test_scores_are_scaled_before_they_are_compared(tmp_path: Path, served: serving.Served) -> None:
    """As zerank's: sigmoid(logit / 5)."""
    raw = (await served.application.engine.score(PAIRS, model="scorer", options=IDENTITY)).scores[:, 0]
    package = toy_packages.write_cross_encoder(tmp_path / "scaled", name="scaled")
    toy_packages.edit_manifest(package, activation=scoring_pb2.ACTIVATION_SIGMOID, score_scale=0.2, score_bias=0.5)
    async with serving.serve(package) as scaled:
        ask = scoring_pb2.RerankRequest(query=QUERY, documents=DOCUMENTS)
        results = list((await scaled.scoring.Rerank(ask)).results)
        expected = 1 / (1 + np.exp(-(raw.astype(np.float64) * 0.2 + 0.5)))
        np.testing.assert_allclose([result.score for result in results], np.sort(expected)[::-1], rtol=1e-6)
        ask.min_score = results[1].score
        kept = list((await scaled.scoring.Rerank(ask)).results)
        assert kept == [result for result in results if result.score >= results[1].score]
        ask.ClearField("min_score")
        ask.activation = scoring_pb2.ACTIVATION_IDENTITY
        bare = [result.score for result in (await scaled.scoring.Rerank(ask)).results]
        np.testing.assert_allclose(bare, np.sort(raw * 0.2 + 0.5)[::-1], rtol=1e-6)
        said = await scaled.models.GetModel(model_pb2.GetModelRequest())
        assert said.manifest.score_scale == pytest.approx(0.2)


async def test_the_time_of_a_request_is_told(served: serving.Served) -> None:
    response = await served.scoring.Rerank(scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS))
    assert response.timing.compute_us > 0
    assert response.usage.tokens > len(DOCUMENTS) * 3


async def test_what_was_cut_is_told(served: serving.Served) -> None:
    documents = scoring_pb2.QueryDocuments(query="q", documents=["short", "long " * 100, "", "long " * 100])
    response = await served.scoring.Score(scoring_pb2.ScoreRequest(model="scorer", query_documents=documents))
    assert list(response.usage.truncated_inputs) == [1, 3]


async def test_a_prompt_stands_before_every_first_text(served: serving.Served) -> None:
    expected = await served.application.engine.score([(f"find: {a}", b) for a, b in PAIRS], model="scorer")
    pairs = scoring_pb2.TextPairs(pairs=[scoring_pb2.TextPair(first=a, second=b) for a, b in PAIRS])
    documents = scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS)
    for request in (
        scoring_pb2.ScoreRequest(model="scorer", text_pairs=pairs, prompt="find: "),
        scoring_pb2.ScoreRequest(model="scorer", query_documents=documents, prompt="find: "),
    ):
        response = await served.scoring.Score(request)
        np.testing.assert_array_equal(np.array(response.scores, np.float32), expected.scores[:, 0])
    ranked = await served.scoring.Rerank(
        scoring_pb2.RerankRequest(model="scorer", query=QUERY, documents=DOCUMENTS, prompt="find: ")
    )
    assert {each.index: each.score for each in ranked.results} == dict(enumerate(expected.scores[:, 0].tolist()))
    plain = await served.scoring.Score(scoring_pb2.ScoreRequest(model="scorer", text_pairs=pairs, prompt=""))
    assert plain.scores != response.scores


async def test_token_ids_give_what_their_texts_give(served: serving.Served) -> None:
    def ids(text: str) -> scoring_pb2.TokenIds:
        return scoring_pb2.TokenIds(ids=toys.wordpiece().encode(text, add_special_tokens=False).ids)

    pairs = [*PAIRS, ("", "the dog " * 60)]
    expected = await served.application.engine.score(pairs, model="scorer")
    tokenised = [scoring_pb2.TokenIdPair(first=ids(first), second=ids(second)) for first, second in pairs]
    request = scoring_pb2.ScoreRequest(model="scorer", token_id_pairs=scoring_pb2.TokenIdPairs(pairs=tokenised))
    response = await served.scoring.Score(request)
    np.testing.assert_array_equal(np.array(response.scores, np.float32), expected.scores[:, 0])
    assert list(response.usage.truncated_inputs) == [len(PAIRS)]


async def test_models_are_listed_by_name_and_described(served: serving.Served) -> None:
    listed = await served.models.ListModels(model_pb2.ListModelsRequest())
    assert [model.name for model in listed.models] == ["classifier", "embedder", "nli", "scorer"]
    answer = await served.models.GetModel(model_pb2.GetModelRequest(model="embedder"))
    assert answer.summary == listed.models[1]
    assert answer.summary.kind == manifest_pb2.MODEL_KIND_BI_ENCODER
    assert answer.summary.variant == "cpu-fp32"
    assert answer.summary.provider == "CPUExecutionProvider"
    assert list(answer.summary.bucket_lengths) == sorted(answer.summary.bucket_lengths)
    assert answer.summary.bucket_lengths[-1] == answer.summary.max_length == 64
    assert answer.summary.workers >= 1
    assert answer.manifest == served.application.engine.models["embedder"].manifest


async def test_the_beginning_of_a_text_may_be_cut_off_instead_of_its_end(served: serving.Served) -> None:
    long, end = "the dog runs " * 60 + "bake bread", "runs " + "the dog runs " * 30 + "bake bread"
    left = scoring_pb2.TRUNCATION_DIRECTION_LEFT

    async def score(document: str, direction: scoring_pb2.TruncationDirection.ValueType) -> float:
        documents = scoring_pb2.QueryDocuments(query="fox", documents=[document])
        request = scoring_pb2.ScoreRequest(model="scorer", query_documents=documents, truncation_direction=direction)
        return (await served.scoring.Score(request)).scores[0]

    assert (
        await score(long, left) == await score(end, left) != await score(long, scoring_pb2.TRUNCATION_DIRECTION_RIGHT)
    )
    assert await score(long, scoring_pb2.TRUNCATION_DIRECTION_RIGHT) == await score(
        long, scoring_pb2.TRUNCATION_DIRECTION_UNSPECIFIED
    )
    with pytest.raises(grpc.aio.AioRpcError, match=r"truncation_direction: 7 is unknown; one of .*LEFT"):
        await score(long, 7)  # type: ignore[arg-type]  # proto3 lets any number through


@pytest.mark.parametrize("multi_label", [False, True])
async def test_labels_come_best_first_with_the_engines_scores(served: serving.Served, multi_label: bool) -> None:
    labels, template = ["bread", "dogs", "bread"], "about {}"
    options = ClassifyOptions(multi_label=multi_label, hypothesis_template=template)
    expected = await served.application.engine.classify(DOCUMENTS, labels, options=options)
    response = await served.scoring.Classify(
        scoring_pb2.ClassifyRequest(
            texts=DOCUMENTS, candidate_labels=labels, multi_label=multi_label, hypothesis_template=template
        )
    )
    assert len(response.results) == len(DOCUMENTS)
    for found, scores in zip(response.results, expected.scores, strict=True):
        order = sorted(range(3), key=lambda index: (-scores[index], index))
        assert [(each.index, each.label, each.score) for each in found.labels] == [
            (index, labels[index], scores[index]) for index in order
        ]
    assert response.model == "nli"
    assert response.usage.tokens == expected.usage.tokens
    assert response.timing.compute_us > 0


async def test_texts_that_were_cut_are_told_and_not_rows(served: serving.Served) -> None:
    response = await served.scoring.Classify(
        scoring_pb2.ClassifyRequest(texts=["short", "long " * 100], candidate_labels=["a", "b", "c"])
    )
    assert list(response.usage.truncated_inputs) == [1]


async def test_the_query_alone_can_be_cut(served: serving.Served) -> None:
    request = scoring_pb2.RerankRequest(
        model="scorer", query="bake " * 100, documents=["mix flour"], truncation=scoring_pb2.TRUNCATION_ONLY_FIRST
    )
    cut = (await served.scoring.Rerank(request)).results[0].score
    request.query = "bake " * 59  # of 64 tokens, 3 are special
    assert (await served.scoring.Rerank(request)).results[0].score == cut
