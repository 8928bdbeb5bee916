"""The same work in each protocol of the server: how it is asked for, and what the answers say of themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairwire.foreign import kserve_pb2, tei_pb2
from pairwire.v1 import embedding_pb2, scoring_pb2

from .datasets import Pair

Message = Any
"""A request of one of the protocols."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says of itself; zeros where its protocol has no place for that."""

    tokens: int = 0
    padded_tokens: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One shape of work in one protocol."""

    path: str
    request: Callable[[Sequence[Pair], str], Message]
    """(pairs, name of the model) -> a request for as many scores or vectors."""
    response: Callable[[bytes], Message]
    told: Callable[[Message], Told]


def call_of(protocol: str, shape: str) -> Call:
    """The call of that protocol and shape.

    Raises:
        SystemExit: it has none.
    """
    found = CALLS.get((protocol, shape))
    if found is None:
        shapes = ", ".join(each for known, each in CALLS if known == protocol)
        raise SystemExit(f"--protocol {protocol} has no --shape {shape}; it has {shapes}")
    return found


def _score(pairs: Sequence[Pair], model: str) -> Message:
    text_pairs = [scoring_pb2.TextPair(first=first, second=second) for first, second in pairs]
    return scoring_pb2.ScoreRequest(model=model, text_pairs=scoring_pb2.TextPairs(pairs=text_pairs))


def _rerank(pairs: Sequence[Pair], model: str) -> Message:
    return scoring_pb2.RerankRequest(model=model, query=pairs[0][0], documents=[second for _, second in pairs])


def _embed(pairs: Sequence[Pair], model: str) -> Message:
    return embedding_pb2.EmbedRequest(model=model, texts=[second for _, second in pairs])


def _infer(**tensors: Sequence[str]) -> Message:
    request = kserve_pb2.ModelInferRequest()
    for name, texts in tensors.items():
        request.inputs.add(name=name, datatype="BYTES", shape=[len(texts)])
        raw = [text.encode() for text in texts]
        request.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in raw))
    return request


def _infer_score(pairs: Sequence[Pair], model: str) -> Message:
    request = _infer(text_a=[first for first, _ in pairs], text_b=[second for _, second in pairs])
    request.model_name = model
    request.outputs.add(name="score")
    return request


def _infer_rerank(pairs: Sequence[Pair], model: str) -> Message:
    request = _infer(query=[pairs[0][0]], documents=[second for _, second in pairs])
    request.model_name = model
    for name in ("score", "rank"):
        request.outputs.add(name=name)
    return request


def _infer_embed(pairs: Sequence[Pair], model: str) -> Message:
    request = _infer(text=[second for _, second in pairs])
    request.model_name = model
    return request


def _tei_rerank(pairs: Sequence[Pair], model: str) -> Message:
    documents = [second for _, second in pairs]
    return tei_pb2.RerankRequest(query=pairs[0][0], texts=documents, truncate=True, raw_scores=True)


def _tei_embed(pairs: Sequence[Pair], model: str) -> Message:
    if len(pairs) != 1:
        raise SystemExit("--protocol tei embeds one text a call: --pairs 1")
    return tei_pb2.EmbedRequest(inputs=pairs[0][1], truncate=True)


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """A request of HTTP."""

    fields: Mapping[str, object]

    def SerializeToString(self) -> bytes:  # as messages of gRPC are serialised
        """JSON in UTF-8, as clients send it."""
        return json.dumps({name: value for name, value in self.fields.items() if value}, ensure_ascii=False).encode()


def _json_rerank(pairs: Sequence[Pair], model: str) -> Message:
    return JsonRequest({"model": model, "query": pairs[0][0], "documents": [second for _, second in pairs]})


def _json_embed(pairs: Sequence[Pair], model: str) -> Message:
    return JsonRequest({"model": model, "input": [second for _, second in pairs], "encoding_format": "base64"})


def _json_score(pairs: Sequence[Pair], model: str) -> Message:
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    return JsonRequest({"model": model, "text_1": firsts, "text_2": seconds})


def _used(response: Message) -> Told:
    return Told(response["usage"]["total_tokens"])


def _ours(response: Message) -> Told:
    usage, timing = response.usage, response.timing
    return Told(usage.tokens, usage.padded_tokens, timing.queue_us / 1e6, timing.compute_us / 1e6)


def _theirs(response: Message) -> Told:
    metadata = response.metadata
    return Told(metadata.compute_tokens, 0, metadata.queue_time_ns / 1e9, metadata.inference_time_ns / 1e9)


_INFER = "/inference.GRPCInferenceService/ModelInfer"
_INFERRED = kserve_pb2.ModelInferResponse.FromString

CALLS: Mapping[tuple[str, str], Call] = {
    ("pairwire", "score"): Call(
        "/pairwire.v1.ScoringService/Score", _score, scoring_pb2.ScoreResponse.FromString, _ours
    ),
    ("pairwire", "rerank"): Call(
        "/pairwire.v1.ScoringService/Rerank", _rerank, scoring_pb2.RerankResponse.FromString, _ours
    ),
    ("pairwire", "embed"): Call(
        "/pairwire.v1.EmbeddingService/Embed", _embed, embedding_pb2.EmbedResponse.FromString, _ours
    ),
    ("kserve", "score"): Call(_INFER, _infer_score, _INFERRED, lambda response: Told()),
    ("kserve", "rerank"): Call(_INFER, _infer_rerank, _INFERRED, lambda response: Told()),
    ("kserve", "embed"): Call(_INFER, _infer_embed, _INFERRED, lambda response: Told()),
    ("tei", "rerank"): Call("/tei.v1.Rerank/Rerank", _tei_rerank, tei_pb2.RerankResponse.FromString, _theirs),
    ("tei", "embed"): Call("/tei.v1.Embed/Embed", _tei_embed, tei_pb2.EmbedResponse.FromString, _theirs),
    ("http", "score"): Call("/v1/score", _json_score, json.loads, _used),
    ("http", "rerank"): Call("/v1/rerank", _json_rerank, json.loads, _used),
    ("http", "embed"): Call("/v1/embeddings", _json_embed, json.loads, _used),
}
"""(protocol, shape) -> call."""
PROTOCOLS = sorted({protocol for protocol, _ in CALLS})
SHAPES = sorted({shape for _, shape in CALLS})
