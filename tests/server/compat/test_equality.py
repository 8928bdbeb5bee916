"""The same texts give the same numbers through every protocol, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pairwire.foreign import tei_pb2
from pairwire.v1 import embedding_pb2, scoring_pb2
from tests.server import serving
from tests.server.compat.foreign import arrays, kserve, numbers, request, tei, texts

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = "how do I bake bread"
DOCUMENTS = ["mix flour and water", "the dog runs", "", "bake the bread", "Zwei Hunde laufen, 猫 😀", "the dog " * 90]


async def scores(served: serving.Served, activation: scoring_pb2.Activation.ValueType) -> np.ndarray:
    documents = scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS)
    asked = scoring_pb2.ScoreRequest(model="scorer", query_documents=documents, activation=activation)
    return np.array((await served.scoring.Score(asked)).scores, np.float32)


async def vectors(served: serving.Served, *, normalize: bool, texts: Sequence[str] = DOCUMENTS) -> np.ndarray:
    asked = embedding_pb2.EmbedRequest(model="embedder", texts=texts, normalize=normalize)
    found = (await served.embedding.Embed(asked)).embeddings
    return np.frombuffer(found.data, np.float32).reshape(found.rows, found.dimensions)


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
async def test_scores_over_kserve(served: serving.Served, typed: bool, activation: str) -> None:
    expected = await scores(served, scoring_pb2.Activation.Value(f"ACTIVATION_{activation.upper()}"))
    logits = await scores(served, scoring_pb2.ACTIVATION_IDENTITY)
    infer = kserve(served.channel, "ModelInfer")
    n = len(DOCUMENTS)
    for tensors in (
        (texts("query", [QUERY]), texts("documents", DOCUMENTS)),
        (texts("query", [QUERY], (1, 1)), texts("documents", DOCUMENTS, (n, 1))),
        (texts("query", [QUERY] * n), texts("passage", DOCUMENTS)),
        (texts("query", [QUERY]), texts("passages", DOCUMENTS, (1, n))),
        (texts("text_a", [QUERY] * n), texts("text_b", DOCUMENTS)),
    ):
        answer = await infer(request("scorer", *tensors, typed=typed, parameters={"activation": activation}, id="x7"))
        found = arrays(answer)
        assert (answer.id, answer.model_name, answer.model_version) == ("x7", "scorer", "1")
        np.testing.assert_array_equal(found["score"][:, 0], expected)
        np.testing.assert_array_equal(found["logit"][:, 0], logits)
        assert found["rank"].tolist() == np.argsort(-expected, kind="stable").tolist()


async def test_rows_that_were_tokenised_for_a_graph_exported_by_hand(served: serving.Served) -> None:
    from tests.server.engine import toys

    tokenizer = toys.wordpiece()
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()
    infer = kserve(served.channel, "ModelInfer")
    pairs = tokenizer.encode_batch([(QUERY, each) for each in DOCUMENTS])
    ids, mask, types = ([getattr(each, name) for each in pairs] for name in ("ids", "attention_mask", "type_ids"))
    expected = await scores(served, scoring_pb2.ACTIVATION_IDENTITY)
    for tensors in (
        (numbers("input_ids", ids), numbers("attention_mask", mask), numbers("token_type_ids", types)),
        (numbers("input_ids", ids, "INT32"), numbers("attention_mask", mask, "INT32")),
    ):
        found = arrays(await infer(request("scorer", *tensors, outputs=["logits"])))
        np.testing.assert_array_equal(found["logits"][:, 0], expected)
    singles = tokenizer.encode_batch(DOCUMENTS)
    ids, mask = ([getattr(each, name) for each in singles] for name in ("ids", "attention_mask"))
    tensors = (numbers("input_ids", ids), numbers("attention_mask", mask))
    found = arrays(await infer(request("embedder", *tensors, outputs=["sentence_embedding"])))
    np.testing.assert_array_equal(found["sentence_embedding"], await vectors(served, normalize=False))


async def test_vectors_over_kserve_and_tei(served: serving.Served) -> None:
    infer, embed = kserve(served.channel, "ModelInfer"), tei(served.channel, "Embed")
    given = texts("text", DOCUMENTS)
    for normalize in (False, True):
        found = arrays(await infer(request("embedder", given, parameters={"normalize": normalize})))
        np.testing.assert_array_equal(found["embedding"], await vectors(served, normalize=normalize))
        for text in filter(None, DOCUMENTS):  # one at a time: a toy's rounding depends on its company
            alone = await vectors(served, normalize=normalize, texts=[text])
            asked = tei_pb2.EmbedRequest(inputs=text, normalize=normalize, truncate=True)
            np.testing.assert_array_equal(np.array((await embed(asked)).embeddings, np.float32), alone[0])
            (streamed,) = [row.embeddings async for row in tei(served.channel, "EmbedStream")(iter([asked]))]
            np.testing.assert_array_equal(np.array(streamed, np.float32), alone[0])
    by_default = await embed(tei_pb2.EmbedRequest(inputs=DOCUMENTS[0]))
    unit = await vectors(served, normalize=True, texts=DOCUMENTS[:1])
    np.testing.assert_array_equal(np.array(by_default.embeddings, np.float32), unit[0])


async def test_weights_over_kserve_and_tei(served: serving.Served) -> None:
    asked = embedding_pb2.EmbedSparseRequest(model="splade", texts=DOCUMENTS[:2], max_active_dims=5)
    expected = (await served.embedding.EmbedSparse(asked)).embeddings
    given = request("splade", texts("text", DOCUMENTS[:2]), parameters={"max_active_dims": 5})
    found = arrays(await kserve(served.channel, "ModelInfer")(given))
    assert found["indices"].tobytes() == expected.indices
    assert found["values"].tobytes() == expected.values
    assert found["counts"].tolist() == list(expected.counts)
    whole = await served.embedding.EmbedSparse(embedding_pb2.EmbedSparseRequest(model="splade", texts=DOCUMENTS[:1]))
    answer = await tei(served.channel, "EmbedSparse")(tei_pb2.EmbedSparseRequest(inputs=DOCUMENTS[0]))
    pairs = [(each.index, np.float32(each.value)) for each in answer.sparse_embeddings]
    indices = np.frombuffer(whole.embeddings.indices, np.uint32).tolist()
    assert pairs == list(zip(indices, np.frombuffer(whole.embeddings.values, np.float32), strict=True))


async def test_scores_over_tei(served: serving.Served) -> None:
    for raw, activation in ((True, scoring_pb2.ACTIVATION_IDENTITY), (False, scoring_pb2.ACTIVATION_SIGMOID)):
        expected = await scores(served, activation)
        asked = tei_pb2.RerankRequest(query=QUERY, texts=DOCUMENTS, raw_scores=raw, truncate=True)
        answer = await tei(served.channel, "Rerank")(asked)
        assert {rank.index: np.float32(rank.score) for rank in answer.ranks} == dict(enumerate(expected))
        streamed = [
            tei_pb2.RerankStreamRequest(query=QUERY, text=text, raw_scores=raw, truncate=True) for text in DOCUMENTS
        ]
        assert (await tei(served.channel, "RerankStream")(iter(streamed))).ranks == answer.ranks


async def test_labels_over_tei_and_kserve(served: serving.Served) -> None:
    pair = [scoring_pb2.TextPair(first=QUERY, second=DOCUMENTS[0])]
    asked = scoring_pb2.ScoreRequest(
        model="classifier",
        text_pairs=scoring_pb2.TextPairs(pairs=pair),
        activation=scoring_pb2.ACTIVATION_SOFTMAX,
    )
    expected = await served.scoring.Score(asked)
    answer = await tei(served.channel, "PredictPair")(tei_pb2.PredictPairRequest(inputs=[QUERY, DOCUMENTS[0]]))
    found = {each.label: each.score for each in answer.predictions}
    assert found == dict(zip(expected.labels, expected.scores, strict=True))
    assert [each.score for each in answer.predictions] == sorted(expected.scores, reverse=True)
    single = await tei(served.channel, "Predict")(tei_pb2.PredictRequest(inputs=DOCUMENTS[0], raw_scores=True))
    alone = await tei(served.channel, "PredictPair")(tei_pb2.PredictPairRequest(inputs=DOCUMENTS[:1], raw_scores=True))
    assert single.predictions == alone.predictions
    given = request("classifier", texts("text", DOCUMENTS[:1]), outputs=["logit"])
    logits = arrays(await kserve(served.channel, "ModelInfer")(given))["logit"]
    assert sorted(logits[0].tolist(), reverse=True) == [each.score for each in single.predictions]
