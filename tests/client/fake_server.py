"""A real gRPC server with deterministic answers, whose failures and pauses a test decides."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pairwire.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    manifest_pb2,
    model_pb2,
    model_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    usage_pb2,
)

DIMENSIONS = 3
DIMENSIONS_OF_SPARSE = 128
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def score_of(first: str, second: str) -> np.float32:
    """A number between 0 and 1 that depends on both texts; equal for all pairs that end in "tie"."""
    if second.endswith("tie"):
        return np.float32(0.5)
    return np.float32(zlib.crc32(f"{first}\0{second}".encode()) / 2**32)


def vector_of(text: str) -> np.ndarray:
    """A float32 [DIMENSIONS]."""
    return np.array([len(text), zlib.crc32(text.encode()) % 1000, 0.25], dtype=np.float32)


def weights_of(text: str) -> dict[int, float]:
    """A weight for each letter, at its code: a sparse vector of DIMENSIONS_OF_SPARSE."""
    return {ord(letter) % DIMENSIONS_OF_SPARSE: text.count(letter) + 0.5 for letter in text}


def as_text(ids: scoring_pb2.TokenIds) -> str:
    """The text that token ids stand for here."""
    return "".join(map(chr, ids.ids))


@dataclass(frozen=True)
class Failure:
    """What a call ends with instead of its answer."""

    code: grpc.StatusCode
    message: str = "as the test wishes"
    trailers: tuple[tuple[str, str | bytes], ...] = ()


def bad_request(field_path: str, reason: str) -> Failure:
    """INVALID_ARGUMENT as Pairwire's server sends it."""
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field=field_path, description=reason)]
        )
    )
    status = status_pb2.Status(code=3, message=f"{field_path}: {reason}", details=[detail])
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"{field_path}: {reason}", trailers)


@dataclass
class Script:
    """What a test wants of a server, and what the server saw."""

    labels: tuple[str, ...] = ("relevant",)
    model: str = "fake"
    prompts: dict[str, str] = field(default_factory=dict)
    failures: deque[Failure | None] = field(default_factory=deque)
    """One is used up by each call; None lets the call pass."""
    older: bool = False
    """It does not know of first stages."""
    answer: Message | None = None
    """Given instead of the right one."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Calls wait here until it is set."""
    requests: list[Message] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    seconds_left: list[float | None] = field(default_factory=list)
    active: int = 0
    most_active: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.gate.set()

    def wait_for_active(self, count: int) -> None:
        """Returns once this many calls are inside."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.active >= count, timeout=120)

    @contextmanager
    def serve(self, request: Message, context: grpc.ServicerContext) -> Iterator[None]:
        """Notes the call, lets it wait at the gate, and fails it where that is asked for."""
        with self.changed:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.seconds_left.append(context.time_remaining())
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            failure = self.failures.popleft() if self.failures else None
            self.changed.notify_all()
        context.add_callback(lambda: None if context.is_active() else self.cancelled.set())
        try:
            self.gate.wait(120)
            if failure is not None:
                context.set_trailing_metadata(failure.trailers)
                context.abort(failure.code, failure.message)
            yield
        finally:
            with self.changed:
                self.active -= 1


def usage_of(count: int) -> usage_pb2.Usage:
    return usage_pb2.Usage(tokens=10 * count, padded_tokens=count, truncated_inputs=[0])


TIMING = usage_pb2.Timing(queue_us=1000, tokenize_us=2000, compute_us=3000)


class Scoring(scoring_pb2_grpc.ScoringServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Score(self, request: scoring_pb2.ScoreRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if self.script.answer is not None:
                return self.script.answer
            if request.WhichOneof("input") == "token_id_pairs":
                pairs = [(as_text(pair.first), as_text(pair.second)) for pair in request.token_id_pairs.pairs]
            elif request.WhichOneof("input") == "query_documents":
                query = request.query_documents.query
                pairs = [(query, document) for document in request.query_documents.documents]
            else:
                pairs = [(pair.first, pair.second) for pair in request.text_pairs.pairs]
            scores = [score_of(*pair) + 2 * at for pair in pairs for at in range(len(self.script.labels))]
            return scoring_pb2.ScoreResponse(
                scores=scores,
                labels=self.script.labels,
                model=self.script.model,
                usage=usage_of(len(pairs)),
                timing=TIMING,
            )

    def Rerank(self, request: scoring_pb2.RerankRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if self.script.answer is not None:
                return self.script.answer
            scores = [score_of(request.query, document) for document in request.documents]
            staged = request.HasField("first_stage") and not self.script.older
            order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
            if staged:  # the shortest documents are the nearest
                near = sorted(range(len(scores)), key=lambda index: (len(request.documents[index]), index))
                order = [index for index in order if index in near[: request.first_stage.keep]]
            kept = len(order)
            if request.HasField("top_k"):
                order = order[: request.top_k]
            return scoring_pb2.RerankResponse(
                results=[
                    scoring_pb2.RankedDocument(
                        index=index,
                        score=scores[index],
                        first_stage_score=-float(len(request.documents[index])) if staged else None,
                    )
                    for index in order
                ],
                first_stage=scoring_pb2.FirstStageReport(
                    model=request.first_stage.model, kept=kept, cached=1, usage=usage_of(2), timing=TIMING
                )
                if staged
                else None,
                model=self.script.model,
                usage=usage_of(len(scores)),
                timing=TIMING,
            )

    def Classify(self, request: scoring_pb2.ClassifyRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if self.script.answer is not None:
                return self.script.answer
            response = scoring_pb2.ClassifyResponse(
                model=self.script.model, usage=usage_of(len(request.texts)), timing=TIMING
            )
            for text in request.texts:
                scores = [score_of(text, label) for label in request.candidate_labels]
                add = response.results.add().labels.add
                for index in ranking(scores):
                    add(index=index, label=request.candidate_labels[index], score=scores[index])
            return response


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Embed(self, request: embedding_pb2.EmbedRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if self.script.answer is not None:
                return self.script.answer
            vectors = np.stack([vector_of(text) for text in self._texts(request)])
            vectors = vectors[:, : request.dimensions or DIMENSIONS]
            if request.normalize:
                vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return embedding_pb2.EmbedResponse(
                embeddings=embedding_pb2.Embeddings(
                    data=_ENCODERS[request.encoding](vectors).tobytes(),
                    rows=len(vectors),
                    dimensions=vectors.shape[1],
                    encoding=request.encoding,
                ),
                model=self.script.model,
                usage=usage_of(len(vectors)),
                timing=TIMING,
            )

    def EmbedSparse(self, request: embedding_pb2.EmbedSparseRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if self.script.answer is not None:
                return self.script.answer
            rows = [sorted(weights_of(text).items()) for text in self._texts(request)]
            rows = [row[: request.max_active_dims or None] for row in rows]
            if request.input_type == embedding_pb2.INPUT_TYPE_QUERY:  # the same tokens, each of weight 1
                rows = [[(index, 1.0) for index, _ in row] for row in rows]
            block = embedding_pb2.SparseEmbeddings(
                indices=np.array([index for row in rows for index, _ in row], "<u4").tobytes(),
                values=np.array([value for row in rows for _, value in row], "<f4").tobytes(),
                counts=[len(row) for row in rows],
                dimensions=DIMENSIONS_OF_SPARSE,
            )
            return embedding_pb2.EmbedSparseResponse(
                embeddings=block, model=self.script.model, usage=usage_of(len(rows)), timing=TIMING
            )

    def _texts(self, request: embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest) -> list[str]:
        prompt = request.prompt or self.script.prompts.get(request.prompt_name, "")
        return [prompt + text for text in request.texts] or [as_text(ids) for ids in request.token_ids]


_ENCODERS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    embedding_pb2.ENCODING_FLOAT32: lambda vectors: vectors.astype("<f4"),
    embedding_pb2.ENCODING_FLOAT16: lambda vectors: vectors.astype("<f2"),
    embedding_pb2.ENCODING_INT8: lambda vectors: np.clip(vectors - 100, -128, 127).astype(np.int8),
    embedding_pb2.ENCODING_BINARY: lambda vectors: np.packbits(vectors > 0.5, axis=1),
}


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def _summary(self) -> model_pb2.ModelSummary:
        return model_pb2.ModelSummary(
            name=self.script.model,
            kind=manifest_pb2.MODEL_KIND_CROSS_ENCODER,
            variant="cpu-int8",
            provider="CPUExecutionProvider",
            max_length=512,
            workers=2,
            intra_op_threads=1,
            bucket_lengths=[16, 32],
        )

    def ListModels(self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            return model_pb2.ListModelsResponse(models=[self._summary()])

    def GetModel(self, request: model_pb2.GetModelRequest, context: grpc.ServicerContext) -> Message:  # type: ignore[override]
        with self.script.serve(request, context):
            if request.model not in ("", self.script.model):
                context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model!r} is loaded")
            manifest = manifest_pb2.ModelManifest(name=self.script.model, prompts=self.script.prompts)
            return model_pb2.GetModelResponse(summary=self._summary(), manifest=manifest)


class FakeServer:
    """A server on a free loopback port; ``script`` says what it does, ``health`` whether it is ready."""

    def __init__(self, *, port: int = 0, credentials: grpc.ServerCredentials | None = None, ready: bool = True) -> None:
        self.script = Script()
        # Its other way to watch sends under its own lock. When a caller leaves then, gRPC's only thread waits for
        # that lock, and the sender for that thread: for ever.
        self.health = health.HealthServicer(experimental_non_blocking=False)
        self._server = grpc.server(
            ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)]
        )
        scoring_pb2_grpc.add_ScoringServiceServicer_to_server(Scoring(self.script), self._server)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Embedding(self.script), self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(self.script), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.health.set("", SERVING if ready else NOT_SERVING)
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.script.gate.set()
        self._server.stop(None).wait()


def ranking(scores: Sequence[float]) -> list[int]:
    """Indices by descending score, equal scores by ascending index."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))
