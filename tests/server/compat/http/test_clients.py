"""The clients that people have, unchanged: what they send is served, and what is wrong is their own exception.

Here are those that need no environment of their own; the others run by `make test-clients`.
"""

from __future__ import annotations

from collections.abc import Iterator

import cohere
import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.server.compat.http.running import Running

QUERY = "what is a cross-encoder"
DOCUMENTS = ["it reads both texts", "bread is baked", "a cross-encoder reads a pair"]


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="whatever", max_retries=0) as found:
        yield found


def best(http: httpx.Client) -> list[int]:
    rows = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).json()["results"]
    return [row["index"] for row in rows]


def test_openai_embeds_texts_and_ids(client: openai.OpenAI) -> None:
    texts = client.embeddings.create(model="embedder", input=DOCUMENTS)
    assert [each.index for each in texts.data] == [0, 1, 2]
    assert texts.usage.prompt_tokens == texts.usage.total_tokens > 0
    floats = client.embeddings.create(model="embedder", input=DOCUMENTS, encoding_format="float")
    assert [each.embedding for each in texts.data] == [
        np.float32(each.embedding).astype(float).tolist() for each in floats.data
    ]
    assert len(client.embeddings.create(model="embedder", input=[5, 6, 7], dimensions=4).data[0].embedding) == 4
    assert len(client.embeddings.create(model="embedder", input=[[5], [6, 7]]).data) == 2


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["classifier", "embedder", "scorer", "splade"]
    assert client.models.retrieve("embedder").owned_by == "pairwire"


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"model": "nope", "input": "a"}, openai.NotFoundError, "no model 'nope' is loaded"),
        ({"model": "scorer", "input": "a"}, openai.BadRequestError, "is a cross-encoder"),
        ({"model": "embedder", "input": []}, openai.BadRequestError, "input: empty"),
        ({"model": "embedder", "input": [[1, 10**9]]}, openai.BadRequestError, "outside the model's vocabulary"),
        ({"model": "embedder", "input": [1, 10**30]}, openai.BadRequestError, "is no token id"),
        ({"model": "embedder", "input": "a", "dimensions": 1000}, openai.BadRequestError, "not between 1 and 8"),
        ({"model": "embedder", "input": "a", "dimensions": -1}, openai.BadRequestError, "no number of dimensions"),
        ({"model": "embedder", "input": "a", "encoding_format": "int4"}, openai.BadRequestError, "float or base64"),
    ],
)
def test_openai_raises_its_own_error(
    client: openai.OpenAI, arguments: dict[str, object], kind: type[openai.APIStatusError], told: str
) -> None:
    with pytest.raises(kind, match=told) as raised:
        client.embeddings.create(**arguments)  # type: ignore[call-overload]  # that is what is tested
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}


def test_cohere_ranks(server: Running, http: httpx.Client) -> None:
    second = cohere.ClientV2(api_key="whatever", base_url=server.url, httpx_client=http)
    found = second.rerank(model="scorer", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert [each.index for each in found.results] == best(http)[:2]
    assert found.id
    first = cohere.Client(api_key="whatever", base_url=server.url, httpx_client=http)
    documents = [{"text": text, "page": "3"} for text in DOCUMENTS]
    found_first = first.rerank(query=QUERY, documents=documents, return_documents=True)
    assert [each.index for each in found_first.results] == best(http)
    assert found_first.results[0].document is not None
    assert found_first.results[0].document.text == DOCUMENTS[best(http)[0]]


def test_cohere_raises_its_own_error(server: Running, http: httpx.Client) -> None:
    client = cohere.ClientV2(api_key="whatever", base_url=server.url, httpx_client=http)
    with pytest.raises(cohere.NotFoundError) as missing:
        client.rerank(model="nope", query=QUERY, documents=DOCUMENTS)
    assert "no model 'nope' is loaded" in missing.value.body["message"]
    with pytest.raises(cohere.BadRequestError) as empty:
        client.rerank(model="scorer", query=QUERY, documents=[])
    assert empty.value.body["message"] == "documents: empty; give at least one"


@pytest.mark.usefixtures("hub_client")
def test_hugging_face_embeds_and_compares(server: Running, http: httpx.Client) -> None:
    client = InferenceClient(base_url=server.url, api_key="whatever")
    one = client.feature_extraction("bread is baked")
    assert one.shape == (1, 8)
    np.testing.assert_array_equal(
        np.float32(client.feature_extraction(DOCUMENTS, truncate=True, truncation_direction="left")),
        np.float32(http.post("/embed", json={"inputs": DOCUMENTS}).json()),
    )
    assert len(client.sentence_similarity(QUERY, other_sentences=DOCUMENTS)) == 3
    assert InferenceClient(model=f"{server.url}/predict").text_classification("bread").label in ("no", "maybe", "yes")


@pytest.mark.usefixtures("hub_client")
def test_hugging_face_knows_the_server(server: Running) -> None:
    client = InferenceClient(model=server.url, provider="hf-inference")
    assert client.health_check()
    assert client.get_endpoint_info()["max_client_batch_size"] == 2048


@pytest.mark.usefixtures("hub_client")
def test_hugging_face_raises_its_own_error(server: Running) -> None:
    client = InferenceClient(base_url=server.url)
    with pytest.raises(HfHubHTTPError, match="inputs: empty; give a text"):
        client.feature_extraction("")
    with pytest.raises(HfHubHTTPError) as raised:
        client.feature_extraction("bread", prompt_name="nope")
    assert raised.value.response.status_code == 422
    assert "nope" in raised.value.response.json()["error"]
