"""The same texts through every protocol give the same numbers, to the last bit."""

from __future__ import annotations

import base64
import gzip
import json

import httpx
import numpy as np
import pytest

from pairwire.v1 import embedding_pb2, scoring_pb2
from pairwire.v1.embedding_pb2_grpc import EmbeddingServiceStub
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server.compat.http.running import Running

QUERY = "what is a cross-encoder"
DOCUMENTS = [
    "it reads both texts",
    "bread is baked",
    "",
    "naïve 東京 🙂",
    "a cross-encoder reads a pair",
    "b c d e f g",
]

Floats = np.ndarray


def float32(numbers: object) -> Floats:
    """As clients read them: a double for each number, and then as short as they were."""
    return np.array(numbers, np.float64).astype(np.float32)


def ours(server: Running, activation: scoring_pb2.Activation.ValueType) -> Floats:
    request = scoring_pb2.ScoreRequest(
        model="scorer",
        query_documents=scoring_pb2.QueryDocuments(query=QUERY, documents=DOCUMENTS),
        activation=activation,
    )
    with server.channel() as channel:
        return np.array(ScoringServiceStub(channel).Score(request).scores, np.float32)


@pytest.fixture(scope="module")
def scores(server: Running) -> Floats:
    """As the checkpoint gives them, which for this one are logits."""
    return ours(server, scoring_pb2.ACTIVATION_UNSPECIFIED)


@pytest.fixture(scope="module")
def vectors(server: Running) -> Floats:
    with server.channel() as channel:
        found = EmbeddingServiceStub(channel).Embed(embedding_pb2.EmbedRequest(model="embedder", texts=DOCUMENTS))
    return np.frombuffer(found.embeddings.data, "<f4").reshape(len(DOCUMENTS), -1)


def by_index(rows: list[dict[str, float]], name: str) -> Floats:
    assert [row[name] for row in rows] == sorted((row[name] for row in rows), reverse=True)
    return float32([row[name] for row in sorted(rows, key=lambda row: row["index"])])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_reranking(http: httpx.Client, path: str, scores: Floats) -> None:
    found = http.post(path, json={"query": QUERY, "documents": DOCUMENTS}).json()["results"]
    np.testing.assert_array_equal(by_index(found, "relevance_score"), scores)


@pytest.mark.parametrize("path", ["/rerank", "/"])
def test_reranking_of_tei(server: Running, http: httpx.Client, path: str, scores: Floats) -> None:
    found = http.post(path, json={"query": QUERY, "texts": DOCUMENTS}).json()
    np.testing.assert_array_equal(by_index(found, "score"), ours(server, scoring_pb2.ACTIVATION_SIGMOID))
    raw = http.post(path, json={"query": QUERY, "texts": DOCUMENTS, "raw_scores": True}).json()
    np.testing.assert_array_equal(by_index(raw, "score"), scores)


def test_scores_of_vllm(http: httpx.Client, scores: Floats) -> None:
    one_to_many = http.post("/score", json={"text_1": QUERY, "text_2": DOCUMENTS}).json()["data"]
    pairs = {"queries": [QUERY] * len(DOCUMENTS), "documents": DOCUMENTS}
    each_to_its_own = http.post("/v1/score", json=pairs).json()["data"]
    for found in (one_to_many, each_to_its_own):
        np.testing.assert_array_equal(float32([row["score"] for row in found]), scores)


@pytest.mark.parametrize("encoding_format", ["float", "base64", None])
def test_embeddings_of_openai(http: httpx.Client, encoding_format: str | None, vectors: Floats) -> None:
    body = {"input": DOCUMENTS, "encoding_format": encoding_format}
    rows = [row["embedding"] for row in http.post("/v1/embeddings", json=body).json()["data"]]
    if encoding_format == "base64":
        found = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    else:
        found = float32(rows)
    np.testing.assert_array_equal(found, vectors)


def test_embeddings_of_tei(server: Running, http: httpx.Client, vectors: Floats) -> None:
    plain = http.post("/embed", json={"inputs": DOCUMENTS, "normalize": False}).json()
    np.testing.assert_array_equal(float32(plain), vectors)
    request = embedding_pb2.EmbedRequest(model="embedder", texts=DOCUMENTS, normalize=True)
    with server.channel() as channel:
        unit = np.frombuffer(EmbeddingServiceStub(channel).Embed(request).embeddings.data, "<f4")
    found = float32(http.post("/embed", json={"inputs": DOCUMENTS}).json())
    np.testing.assert_array_equal(found, unit.reshape(found.shape))


def test_sparse_embeddings_of_tei(server: Running, http: httpx.Client) -> None:
    with server.channel() as channel:
        request = embedding_pb2.EmbedSparseRequest(model="splade", texts=DOCUMENTS)
        whole = EmbeddingServiceStub(channel).EmbedSparse(request).embeddings
    rows = http.post("/embed_sparse", json={"inputs": DOCUMENTS}).json()
    assert [len(row) for row in rows] == list(whole.counts)
    np.testing.assert_array_equal(
        [value["index"] for row in rows for value in row], np.frombuffer(whole.indices, "<u4")
    )
    np.testing.assert_array_equal(
        float32([value["value"] for row in rows for value in row]), np.frombuffer(whole.values, "<f4")
    )


def test_labels_of_pairs(server: Running, http: httpx.Client) -> None:
    pairs = [scoring_pb2.TextPair(first=QUERY, second=document) for document in DOCUMENTS]
    request = scoring_pb2.ScoreRequest(
        model="classifier",
        text_pairs=scoring_pb2.TextPairs(pairs=pairs),
        activation=scoring_pb2.ACTIVATION_SOFTMAX,  # as TEI has it for several labels
    )
    with server.channel() as channel:
        answer = ScoringServiceStub(channel).Score(request)
    expected = np.array(answer.scores, np.float32).reshape(len(DOCUMENTS), -1)
    found = http.post("/predict", json={"inputs": [[QUERY, document] for document in DOCUMENTS]}).json()
    for row, scores in zip(found, expected, strict=True):
        assert [each["score"] for each in row] == sorted((each["score"] for each in row), reverse=True)
        by_label = {each["label"]: each["score"] for each in row}
        np.testing.assert_array_equal(float32([by_label[label] for label in answer.labels]), scores)


def test_whole_numbers_are_written_as_floats(http: httpx.Client) -> None:
    text = http.post("/embed", json={"inputs": [""], "normalize": False}).text
    assert "," in text
    assert all("." in number or "e" in number for number in text.strip("[]\n").split(","))


def tensor(name: str, values: list[str]) -> dict[str, object]:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}


def test_kserve(http: httpx.Client, scores: Floats, vectors: Floats) -> None:
    inputs = [tensor("query", [QUERY]), tensor("documents", DOCUMENTS)]
    body = {"id": "7", "inputs": inputs, "outputs": [{"name": "logit"}, {"name": "rank"}]}
    found = http.post("/v2/models/scorer/infer", json=body).json()
    assert (found["id"], found["model_name"]) == ("7", "scorer")
    logits, ranks = found["outputs"]
    assert (logits["datatype"], logits["shape"]) == ("FP32", [len(DOCUMENTS), 1])
    np.testing.assert_array_equal(float32(logits["data"]), scores)
    assert ranks["data"] == np.argsort(-scores, kind="stable").tolist()
    embedded = http.post("/v2/models/embedder/versions/1/infer", json={"inputs": [tensor("text", DOCUMENTS)]}).json()
    (embedding,) = embedded["outputs"]
    np.testing.assert_array_equal(float32(embedding["data"]).reshape(embedding["shape"]), vectors)


def test_raw_contents_of_kserve(http: httpx.Client, vectors: Floats) -> None:
    raw = b"".join(len(each.encode()).to_bytes(4, "little") + each.encode() for each in DOCUMENTS)
    text = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [len(DOCUMENTS)],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [text], "parameters": {"binary_data_output": True}}).encode()
    answer = http.post(
        "/v2/models/embedder/infer",
        content=gzip.compress(head + raw),
        headers={"inference-header-content-length": str(len(head)), "content-encoding": "gzip"},
    )
    size = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:size])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(answer.content) - size}
    found = np.frombuffer(answer.content[size:], "<f4").reshape(output["shape"])
    np.testing.assert_array_equal(found, vectors)
