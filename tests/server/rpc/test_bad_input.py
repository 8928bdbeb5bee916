"""One table of everything that can be wrong with a request: bytes in, status and words out, and the server goes on."""

# ruff: noqa: E501  a table is read by its columns

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pairwire.server.config import RequestLimits
from pairwire.v1 import embedding_pb2, model_pb2, scoring_pb2
from tests.server import serving

LIMITS = RequestLimits(max_items=4, max_text_bytes=100, max_message_bytes=4096)
PAIR = scoring_pb2.TextPair(first="a", second="b")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@dataclass(frozen=True)
class Case:
    """A request that cannot be served, and what its sender is told."""

    name: str
    rpc: str
    request: Message | bytes
    code: grpc.StatusCode
    words: str
    field: str = ""


def score(**fields: object) -> scoring_pb2.ScoreRequest:
    given = {"text_pairs": {"pairs": [PAIR]}} if not {"query_documents", "token_id_pairs"} & set(fields) else {}
    return scoring_pb2.ScoreRequest(**{"model": "scorer", **given, **fields})


def rerank(**fields: object) -> scoring_pb2.RerankRequest:
    return scoring_pb2.RerankRequest(**{"model": "scorer", "query": "q", "documents": ["d"], **fields})


def embed(**fields: object) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(**{"model": "embedder", "texts": ["t"], **fields})


def sparse(**fields: object) -> embedding_pb2.EmbedSparseRequest:
    return embedding_pb2.EmbedSparseRequest(**{"model": "splade", "texts": ["t"], **fields})


def classify(**fields: object) -> scoring_pb2.ClassifyRequest:
    return scoring_pb2.ClassifyRequest(**{"model": "nli", "texts": ["t"], "candidate_labels": ["a", "b"], **fields})


def ids(*numbers: int) -> scoring_pb2.TokenIds:
    return scoring_pb2.TokenIds(ids=numbers)


def id_pairs(*texts: tuple[list[int], list[int]]) -> dict[str, object]:
    return {"pairs": [scoring_pb2.TokenIdPair(first=ids(*first), second=ids(*second)) for first, second in texts]}


def staged(fields: dict[str, object] | None = None, **stage: object) -> scoring_pb2.RerankRequest:
    return rerank(first_stage={"model": "embedder", "keep": 1, **stage}, **(fields or {}))


def pairs(*texts: tuple[str, str]) -> dict[str, object]:
    return {"pairs": [scoring_pb2.TextPair(first=first, second=second) for first, second in texts]}


def replaced(message: Message, old: bytes, new: bytes) -> bytes:
    raw = message.SerializeToString()
    assert old in raw
    return raw.replace(old, new)


CASES = [
    Case("no input", "Score", scoring_pb2.ScoreRequest(model="scorer"), INVALID, "give text_pairs, query_documents or token_id_pairs", "input"),
    Case("no request at all", "Score", b"", INVALID, "give text_pairs, query_documents or token_id_pairs", "input"),
    Case("no pairs", "Score", score(text_pairs={}), INVALID, "empty; give at least one", "text_pairs.pairs"),
    Case("no documents", "Score", score(query_documents={"query": "q"}), INVALID, "empty", "query_documents.documents"),
    Case("no documents to rank", "Rerank", rerank(documents=[]), INVALID, "empty; give at least one", "documents"),
    Case("no texts", "Embed", embed(texts=[]), INVALID, "empty; give at least one", "texts"),
    Case("too many pairs", "Score", score(text_pairs={"pairs": [PAIR] * 5}), INVALID, "5 exceed --max-items 4", "text_pairs.pairs"),
    Case("too many documents", "Rerank", rerank(documents=["d"] * 5), INVALID, "5 exceed --max-items 4", "documents"),
    Case("too many texts", "Embed", embed(texts=["t"] * 5), INVALID, "5 exceed --max-items 4", "texts"),
    Case("long query", "Rerank", rerank(query="x" * 101), INVALID, "101 bytes exceed --max-text-bytes 100", "query"),
    Case("long document", "Rerank", rerank(documents=["d", "é" * 51]), INVALID, "102 bytes exceed --max-text-bytes 100", "documents[1]"),
    Case("long second text", "Score", score(text_pairs=pairs(("a", "b"), ("a", "x" * 200))), INVALID, "--max-text-bytes", "text_pairs.pairs[1].second"),
    Case("long first text", "Score", score(text_pairs=pairs(("x" * 200, "b"))), INVALID, "--max-text-bytes", "text_pairs.pairs[0].first"),
    Case("long text", "Embed", embed(texts=["x" * 101]), INVALID, "shorten or split the text", "texts[0]"),
    Case("large message", "Rerank", rerank(documents=["x" * 5000]), INVALID, "exceed --max-message-bytes 4096", "request"),
    Case("no protobuf", "Score", b"\xff\xff\xff\xff", INVALID, "not a pairwire.v1.ScoreRequest", "request"),
    Case("cut protobuf", "Rerank", rerank().SerializeToString()[:-1], INVALID, "not a pairwire.v1.RerankRequest", "request"),
    Case("broken UTF-8", "Rerank", replaced(rerank(documents=["ok", "bad!"]), b"bad!", b"b\xffd!"), INVALID, "not valid UTF-8", "documents[1]"),
    Case("lone surrogate", "Rerank", replaced(rerank(query="???"), b"???", b"\xed\xa0\x80"), INVALID, "not valid UTF-8", "query"),
    Case("broken UTF-8 deep inside", "Score", replaced(score(text_pairs=pairs(("a", "b"), ("a", "bad!"))), b"bad!", b"bad\xc3"), INVALID, "not valid UTF-8", "text_pairs.pairs[1].second"),
    Case("unknown model", "Score", score(model="nobody"), NOT_FOUND, "no model 'nobody' is loaded; there is 'scorer'"),
    Case("unknown model to rank", "Rerank", rerank(model="nobody"), NOT_FOUND, "'nobody'"),
    Case("unknown model to embed", "Embed", embed(model="nobody"), NOT_FOUND, "'nobody'"),
    Case("unknown model to get", "GetModel", model_pb2.GetModelRequest(model="nobody"), NOT_FOUND, "'nobody'"),
    Case("model name of 3 kB", "Score", score(model="m" * 3000), NOT_FOUND, "no model 'mmmm"),
    Case("no model among several", "Score", score(model=""), INVALID, "name one of 'scorer'", "model"),
    Case("no model to get among several", "GetModel", b"", INVALID, "name one of", "model"),
    Case("embedding asked of a cross-encoder", "Embed", embed(model="scorer"), PRECONDITION, "model 'scorer' is a cross-encoder"),
    Case("scores asked of a bi-encoder", "Score", score(model="embedder"), PRECONDITION, "model 'embedder' is a bi-encoder"),
    Case("ranking asked of a bi-encoder", "Rerank", rerank(model="embedder"), PRECONDITION, "is a bi-encoder"),
    Case("ranking asked of a classifier", "Rerank", rerank(model="classifier"), PRECONDITION, "3 labels (no, maybe, yes)"),
    Case("softmax over one label", "Rerank", rerank(activation=scoring_pb2.ACTIVATION_SOFTMAX), INVALID, "makes every score 1", "activation"),
    Case("negative top_k", "Rerank", rerank(top_k=-3), INVALID, "-3 is not a number of documents", "top_k"),
    Case("zero top_k", "Rerank", rerank(top_k=0), INVALID, "at least 1, or leave it out", "top_k"),
    Case("min_score that is no number", "Rerank", rerank(min_score=float("nan")), INVALID, "NaN is no score", "min_score"),
    Case("wrong activation", "Score", score(activation=9), INVALID, "9 is unknown; one of ACTIVATION_UNSPECIFIED (0)", "activation"),
    Case("wrong truncation", "Rerank", rerank(truncation=-1), INVALID, "-1 is unknown; one of TRUNCATION_UNSPECIFIED (0)", "truncation"),
    Case("wrong priority of pairs", "Score", score(priority=4), INVALID, "4 is unknown; one of PRIORITY_UNSPECIFIED (0)", "priority"),
    Case("wrong priority of a ranking", "Rerank", rerank(priority=-1), INVALID, "-1 is unknown; one of PRIORITY_UNSPECIFIED", "priority"),
    Case("wrong priority of texts", "Embed", embed(priority=9), INVALID, "9 is unknown; one of PRIORITY_UNSPECIFIED (0)", "priority"),
    Case("wrong encoding", "Embed", embed(encoding=7), INVALID, "7 is unknown; one of ENCODING_UNSPECIFIED (0)", "encoding"),
    Case("max_length beyond the model", "Score", score(max_length=65), INVALID, "at most 64", "max_length"),
    Case("max_length without room", "Score", score(max_length=3), INVALID, "leaves no room", "max_length"),
    Case("text that may not be cut", "Score", score(text_pairs=pairs(("a", "b " * 40)), max_length=8, truncation=scoring_pb2.TRUNCATION_ERROR), INVALID, "exceed max_length 8", "text_pairs.pairs[0].second"),
    Case("document that may not be cut", "Rerank", rerank(documents=["b " * 40], max_length=8, truncation=scoring_pb2.TRUNCATION_ERROR), INVALID, "exceed max_length 8", "documents[0]"),
    Case("single text cut as a pair", "Embed", embed(truncation=scoring_pb2.TRUNCATION_ONLY_SECOND), INVALID, "needs pairs", "truncation"),
    Case("unknown prompt", "Embed", embed(prompt_name="passage"), INVALID, "model 'embedder' has 'query'", "prompt_name"),
    Case("unknown prompt of sparse vectors", "EmbedSparse", sparse(prompt_name="passage"), INVALID, "model 'splade' has 'query'", "prompt_name"),
    Case("unknown prompt of pairs", "Score", score(prompt_name="query"), INVALID, "model 'scorer' has none at all", "prompt_name"),
    Case("unknown prompt of a ranking", "Rerank", rerank(prompt_name=""), INVALID, "model 'scorer' has none at all", "prompt_name"),
    Case("two prompts", "Embed", embed(prompt_name="query", prompt=""), INVALID, "set together with prompt_name 'query'", "prompt"),
    Case("two prompts of sparse vectors", "EmbedSparse", sparse(prompt_name="query", prompt="p"), INVALID, "give one of them", "prompt"),
    Case("two prompts of pairs", "Score", score(prompt_name="a", prompt="b"), INVALID, "set together with prompt_name 'a'", "prompt"),
    Case("two prompts of a ranking", "Rerank", rerank(prompt_name="a", prompt="b"), INVALID, "set together with prompt_name 'a'", "prompt"),
    Case("long prompt", "Embed", embed(prompt="é" * 51), INVALID, "102 bytes exceed --max-text-bytes 100", "prompt"),
    Case("long prompt of a ranking", "Rerank", rerank(prompt="p" * 101), INVALID, "--max-text-bytes", "prompt"),
    Case("long prompt of pairs", "Score", score(prompt="p" * 101), INVALID, "--max-text-bytes", "prompt"),
    Case("long prompt of documents", "Score", score(query_documents={"query": "q", "documents": ["d"]}, prompt="p" * 101), INVALID, "--max-text-bytes", "prompt"),
    Case("prompt that is no UTF-8", "Embed", replaced(embed(prompt="????"), b"????", b"\xed\xa0\x80?"), INVALID, "not valid UTF-8", "prompt"),
    Case("more dimensions than there are", "Embed", embed(dimensions=9), INVALID, "9 is not between 1 and 8", "dimensions"),
    Case("most dimensions", "Embed", embed(dimensions=2**32 - 1, encoding=embedding_pb2.ENCODING_INT8), INVALID, "4294967295 is not between 1 and 8", "dimensions"),
    Case("more dimensions than there are by default", "Embed", embed(model="cut", dimensions=9), INVALID, "between 1 and 8", "dimensions"),
    Case("int8 without ranges", "Embed", embed(model="cut", encoding=embedding_pb2.ENCODING_INT8), PRECONDITION, "the package of model 'cut' has no int8 ranges; export it again"),
    Case("int8 of normalised vectors", "Embed", embed(encoding=embedding_pb2.ENCODING_INT8, normalize=True), INVALID, "leave normalize out", "normalize"),
    Case("int8 of no bi-encoder", "Embed", embed(model="scorer", encoding=embedding_pb2.ENCODING_INT8), PRECONDITION, "is a cross-encoder"),
    Case("texts and token ids", "Embed", embed(token_ids=[ids(5)]), INVALID, "set together with texts", "token_ids"),
    Case("texts and token ids for sparse vectors", "EmbedSparse", sparse(token_ids=[ids(5)]), INVALID, "set together with texts", "token_ids"),
    Case("too many token ids", "Embed", embed(texts=[], token_ids=[ids(5)] * 5), INVALID, "5 exceed --max-items 4", "token_ids"),
    Case("long token ids", "Embed", embed(texts=[], token_ids=[ids(), ids(*[5] * 26)]), INVALID, "26 token ids of 4 bytes exceed --max-text-bytes 100", "token_ids[1]"),
    Case("id outside the vocabulary", "Embed", embed(texts=[], token_ids=[ids(5), ids(5, 90_000)]), INVALID, "90000 is outside the model's vocabulary; ids are below", "token_ids[1].ids[1]"),
    Case("id outside the vocabulary for sparse vectors", "EmbedSparse", sparse(texts=[], token_ids=[ids(90_000)]), INVALID, "outside the model's vocabulary", "token_ids[0].ids[0]"),
    Case("id that is none", "Embed", embed(texts=[], token_ids=[ids(2**32 - 1)]), INVALID, "4294967295 is no token id", "token_ids[0].ids[0]"),
    Case("id outside the vocabulary in a pair", "Score", score(token_id_pairs=id_pairs(([5], [6]), ([5], [6, 90_000]))), INVALID, "outside the model's vocabulary", "token_id_pairs.pairs[1].second.ids[1]"),
    Case("no pairs of token ids", "Score", score(token_id_pairs={}), INVALID, "empty; give at least one", "token_id_pairs.pairs"),
    Case("too many pairs of token ids", "Score", score(token_id_pairs=id_pairs(*[([5], [6])] * 5)), INVALID, "5 exceed --max-items 4", "token_id_pairs.pairs"),
    Case("long token ids in a pair", "Score", score(token_id_pairs=id_pairs(([5] * 26, [6]))), INVALID, "26 token ids", "token_id_pairs.pairs[0].first"),
    Case("prompt before token ids", "Embed", embed(texts=[], token_ids=[ids(5)], prompt_name="query"), INVALID, "a prompt is tokenised with the text", "token_ids[0]"),
    Case("prompt before token ids of a pair", "Score", score(token_id_pairs=id_pairs(([5], [6])), prompt="p"), INVALID, "a prompt is tokenised with the text", "token_id_pairs.pairs[0].first"),
    Case("token ids that may not be cut", "Embed", embed(texts=[], token_ids=[ids(*[5] * 20)], max_length=8, truncation=scoring_pb2.TRUNCATION_ERROR), INVALID, "22 tokens with special tokens exceed max_length 8", "token_ids[0]"),
    Case("nothing kept by a first stage", "Rerank", staged(keep=0), INVALID, "0 is not a number of documents; at least 1", "first_stage.keep"),
    Case("no model of a first stage among several", "Rerank", staged(model=""), INVALID, "there are several of kind bi-encoder", "first_stage.model"),
    Case("unknown model of a first stage", "Rerank", staged(model="nobody"), NOT_FOUND, "no model 'nobody' is loaded"),
    Case("first stage by a cross-encoder", "Rerank", staged(model="scorer"), PRECONDITION, "model 'scorer' is a cross-encoder"),
    Case("unknown prompt for the query", "Rerank", staged(query_prompt_name="no"), INVALID, "model 'embedder' has 'query'", "first_stage.query_prompt_name"),
    Case("unknown prompt for documents", "Rerank", staged(document_prompt_name=""), INVALID, "'' is unknown", "first_stage.document_prompt_name"),
    Case("first stage before a classifier", "Rerank", staged({"model": "classifier"}), PRECONDITION, "3 labels (no, maybe, yes)"),
    Case("first stage before a bi-encoder", "Rerank", staged({"model": "embedder"}), PRECONDITION, "is a bi-encoder"),
    Case("no documents for a first stage", "Rerank", staged({"documents": []}), INVALID, "empty; give at least one", "documents"),
    Case("too many documents for a first stage", "Rerank", staged({"documents": ["d"] * 5}), INVALID, "5 exceed --max-items 4", "documents"),
    Case("zero top_k of a first stage", "Rerank", staged({"top_k": 0}), INVALID, "at least 1, or leave it out", "top_k"),
    Case("document of a first stage that may not be cut", "Rerank", staged({"documents": ["a", "b " * 40], "max_length": 8, "truncation": scoring_pb2.TRUNCATION_ERROR}, keep=9), INVALID, "exceed max_length 8", "documents[1]"),
    Case("no texts for sparse vectors", "EmbedSparse", sparse(texts=[]), INVALID, "empty; give at least one", "texts"),
    Case("too many texts for sparse vectors", "EmbedSparse", sparse(texts=["t"] * 5), INVALID, "5 exceed --max-items 4", "texts"),
    Case("long text for sparse vectors", "EmbedSparse", sparse(texts=["x" * 101]), INVALID, "shorten or split the text", "texts[0]"),
    Case("wrong truncation of sparse vectors", "EmbedSparse", sparse(truncation=7), INVALID, "7 is unknown; one of TRUNCATION_UNSPECIFIED (0)", "truncation"),
    Case("wrong priority of sparse vectors", "EmbedSparse", sparse(priority=7), INVALID, "7 is unknown; one of PRIORITY_UNSPECIFIED (0)", "priority"),
    Case("dense vectors asked of a sparse encoder", "Embed", embed(model="splade"), PRECONDITION, "model 'splade' is a sparse-encoder"),
    Case("sparse vectors asked of a bi-encoder", "EmbedSparse", sparse(model="embedder"), PRECONDITION, "model 'embedder' is a bi-encoder"),
    Case("unknown model for sparse vectors", "EmbedSparse", sparse(model="nobody"), NOT_FOUND, "'nobody'"),
    Case("no texts to classify", "Classify", classify(texts=[]), INVALID, "empty; give at least one", "texts"),
    Case("no labels", "Classify", classify(candidate_labels=[]), INVALID, "empty; give at least one", "candidate_labels"),
    Case("empty label", "Classify", classify(candidate_labels=["a", ""]), INVALID, "empty; give a word or a phrase", "candidate_labels[1]"),
    Case("too many labels", "Classify", classify(candidate_labels=["a"] * 5), INVALID, "5 exceed --max-items 4", "candidate_labels"),
    Case("too many texts with labels", "Classify", classify(texts=["a"] * 3), INVALID, "3 with 2 candidate labels make 6 pairs, which exceed --max-items 4", "texts"),
    Case("long text to classify", "Classify", classify(texts=["x" * 101]), INVALID, "101 bytes exceed --max-text-bytes 100", "texts[0]"),
    Case("long label", "Classify", classify(candidate_labels=["a", "x" * 101]), INVALID, "101 bytes exceed --max-text-bytes 100", "candidate_labels[1]"),
    Case("long hypothesis", "Classify", classify(candidate_labels=["a", "x" * 90]), INVALID, "its hypothesis has 107 bytes, which exceed --max-text-bytes 100", "candidate_labels[1]"),
    Case("label that comes often", "Classify", classify(hypothesis_template="{0}" * 33, candidate_labels=["abcd"]), INVALID, "its hypothesis has 132 bytes", "candidate_labels[0]"),
    Case("long template", "Classify", classify(hypothesis_template="{}" + "x" * 99), INVALID, "101 bytes exceed", "hypothesis_template"),
    Case("template without a place", "Classify", classify(hypothesis_template="This is it."), INVALID, "put {} there", "hypothesis_template"),
    Case("template that reaches for attributes", "Classify", classify(hypothesis_template="{0.__class__}"), INVALID, "'{0.__class__}' is no place for the label", "hypothesis_template"),
    Case("empty template", "Classify", classify(hypothesis_template=""), INVALID, "'' has no place", "hypothesis_template"),
    Case("hypothesis that may not be cut", "Classify", classify(hypothesis_template="{}", candidate_labels=["b", "b b b b b b b"], max_length=8), INVALID, "exceed max_length 8", "candidate_labels[1]"),
    Case("wrong truncation of a classification", "Classify", classify(truncation=9), INVALID, "9 is unknown; one of TRUNCATION_UNSPECIFIED (0)", "truncation"),
    Case("wrong direction of a classification", "Classify", classify(truncation_direction=9), INVALID, "9 is unknown; one of TRUNCATION_DIRECTION_UNSPECIFIED (0)", "truncation_direction"),
    Case("wrong priority of a classification", "Classify", classify(priority=9), INVALID, "9 is unknown; one of PRIORITY_UNSPECIFIED (0)", "priority"),
    Case("classification by a classifier", "Classify", classify(model="classifier"), PRECONDITION, "no label that is called entailment (no, maybe, yes)"),
    Case("classification by a bi-encoder", "Classify", classify(model="embedder"), PRECONDITION, "is a bi-encoder"),
    Case("unknown model to classify", "Classify", classify(model="nobody"), NOT_FOUND, "'nobody'"),
    Case("cut protobuf of a classification", "Classify", classify().SerializeToString()[:-1], INVALID, "not a pairwire.v1.ClassifyRequest", "request"),
    Case("first text of one text", "Embed", embed(truncation=scoring_pb2.TRUNCATION_ONLY_FIRST), INVALID, "only_first needs pairs", "truncation"),
    Case("document that cutting the query cannot fit", "Rerank", rerank(documents=["a", "b " * 40], max_length=8, truncation=scoring_pb2.TRUNCATION_ONLY_FIRST), INVALID, "exceed max_length 8", "documents[1]"),
]  # fmt: skip

GOOD = {
    "Score": score(),
    "Rerank": rerank(),
    "Classify": classify(),
    "Embed": embed(),
    "EmbedSparse": sparse(),
    "GetModel": model_pb2.GetModelRequest(model="scorer"),
}
SERVICES = {
    "Score": "Scoring",
    "Rerank": "Scoring",
    "Classify": "Scoring",
    "Embed": "Embedding",
    "EmbedSparse": "Embedding",
    "GetModel": "Model",
}


@pytest.fixture(scope="module")
def packages_to_serve(
    scorer_package: Path,
    classifier_package: Path,
    embedder_package: Path,
    cut_embedder_package: Path,
    sparse_package: Path,
    nli_package: Path,
) -> tuple[Path, ...]:
    return scorer_package, classifier_package, embedder_package, cut_embedder_package, sparse_package, nli_package


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(packages_to_serve: tuple[Path, ...]) -> AsyncIterator[grpc.aio.Channel]:
    async with serving.serve(settings=serving.config(*packages_to_serve, limits=LIMITS)) as served:
        yield served.channel


async def call(channel: grpc.aio.Channel, rpc: str, request: Message | bytes) -> bytes:
    """The raw answer to raw bytes: what no generated client would send can be sent too."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    method = channel.unary_unary(f"/pairwire.v1.{SERVICES[rpc]}Service/{rpc}")
    answer: bytes = await method(raw, timeout=serving.PATIENCE_S)
    return answer


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_gets_its_status_and_a_sentence_and_the_next_request_is_served(
    case: Case, channel: grpc.aio.Channel
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, case.rpc, case.request)
    error = caught.value
    assert error.code() is case.code
    assert case.words in (error.details() or "")
    status = rpc_status.from_call(error)
    if case.code is INVALID:
        assert status is not None
        detail = error_details_pb2.BadRequest.FromString(status.details[0].value)
        assert [violation.field for violation in detail.field_violations] == [case.field]
        assert f"{case.field}: {detail.field_violations[0].description}" == error.details()
    else:
        assert status is None
    assert await call(channel, case.rpc, GOOD[case.rpc])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", ["", "\0", "a\0b", " \n\t", "🤷‍♀️", "\u202e\ufeff", "ｅ́"], ids=ascii)
async def test_odd_but_legal_text_is_served(text: str, channel: grpc.aio.Channel) -> None:
    for rpc, request in (
        ("Score", score(text_pairs=pairs((text, text)))),
        ("Rerank", rerank(query=text, documents=[text, "d"])),
        ("Embed", embed(texts=[text])),
        ("Embed", embed(prompt=text)),
        ("EmbedSparse", sparse(texts=[text], prompt=text)),
    ):
        assert await call(channel, rpc, request)


async def test_what_exceeds_the_default_limits_is_told_so_and_what_does_not_is_served(scorer: serving.Served) -> None:
    for request, words in (
        (rerank(documents=["d"] * 3_000), "documents: 3000 exceed --max-items 2048"),
        (rerank(documents=["d"] * 100_000), "documents: more than --max-items 2048; send several"),
        (rerank(model="m" * 1_100_000), "model: 1100000 bytes exceed --max-text-bytes 1048576"),
        (rerank(documents=["x" * 1_100_000]), "documents[0]: 1100000 bytes exceed --max-text-bytes 1048576"),
        (rerank(documents=["x" * 1_000_000] * 34), "exceed --max-message-bytes 33554432"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scorer.scoring.Rerank(request)
        assert caught.value.code() is INVALID
        assert words in (caught.value.details() or "")
    answer = await scorer.scoring.Rerank(rerank(query="q " * 500_000, documents=["d " * 500_000, "d"]))
    assert answer.usage.truncated_inputs == [0, 1]


async def test_what_exceeds_grpcs_own_limit_is_refused_by_grpc(scorer: serving.Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scorer.scoring.Rerank(rerank(documents=["x" * (1 << 20)] * 34))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await scorer.scoring.Rerank(rerank())
