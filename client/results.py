"""What the clients answer: small frozen objects with numpy arrays, and how the answers of a split input become one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from pairwire.v1 import manifest_pb2

from .errors import ServerFault

Float32Array = npt.NDArray[np.float32]
UInt32Array = npt.NDArray[np.uint32]
VectorArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.int8] | npt.NDArray[np.uint8]
UnscoredReason = Literal["deadline", "overloaded"]
"""No time before the deadline; no room in the server's queue."""
ModelKind = Literal["cross-encoder", "bi-encoder", "sparse-encoder"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call cost, in tokens after truncation, special tokens included."""

    tokens: int
    """Useful tokens computed."""
    padded_tokens: int
    """Padding computed beside them."""
    truncated_inputs: tuple[int, ...] = ()
    """Ascending indices, in what the caller gave, of the pairs, documents or texts that did not fit and were cut."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in seconds. The server's three parts are summed over the requests of a split input."""

    queue_s: float
    """In the server's queue."""
    tokenize_s: float
    compute_s: float
    """From the start of the first batch with an input of the request to the end of the last."""
    elapsed_s: float
    """As the client saw it, network and retries included: from the first request sent to the last answer."""
    requests: int = 1
    """Requests that the input was split into."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreResult:
    """Scores in input order."""

    scores: Float32Array
    """[pairs] of a model with one label, else [pairs, labels]."""
    labels: tuple[str, ...]
    model: str
    usage: Usage
    timing: Timing

    def __len__(self) -> int:
        return len(self.scores)

    def best_labels(self) -> list[str]:
        """The label with the highest score of each pair, e.g. ``["entailment", "neutral"]``; of equal ones the first.

        Raises:
            ValueError: the model has one label only, so that its score is all there is to say.
        """
        if len(self.labels) == 1:
            raise ValueError(f"model {self.model!r} has one label, {self.labels[0]!r}; read its scores")
        return [self.labels[best] for best in self.scores.argmax(axis=1)]


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its score."""

    index: int
    """Position among the documents that the caller gave."""
    score: float
    """NaN where ``unscored`` says why there is none."""
    document: str = field(repr=False)
    first_stage_score: float | None = None
    """Similarity of query and document, where there was a first stage."""
    unscored: UnscoredReason | None = None
    """Why it has no score; only with ``partial_ok``."""

    @property
    def scored(self) -> bool:
        """Whether it has a score."""
        return self.unscored is None


@dataclass(frozen=True, slots=True)
class FirstStageReport:
    """What the first stage of a rerank did."""

    model: str
    """The bi-encoder that answered."""
    kept: int
    """Documents that the cross-encoder read."""
    cached: int
    """Documents whose vectors the server knew already."""
    usage: Usage
    """Of the texts that had to be embedded."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class RerankResult(Sequence[RankedDocument]):
    """The best documents, best first, equal scores by ascending index; a sequence of them."""

    results: tuple[RankedDocument, ...]
    model: str
    usage: Usage
    timing: Timing
    first_stage: FirstStageReport | None = None
    """Where there was one; the documents are then the best of those that it kept."""
    unscored: int = 0
    """Documents without a score, those that ``top_k`` leaves out included; only with ``partial_ok``."""
    unscored_reason: str = ""
    """Why they have none, as a sentence of the server's."""

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> RankedDocument: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RankedDocument, ...]: ...
    def __getitem__(self, index: int | slice) -> RankedDocument | tuple[RankedDocument, ...]:
        return self.results[index]

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.results)


@dataclass(frozen=True, slots=True, eq=False)
class EmbedResult:
    """Vectors in input order."""

    embeddings: VectorArray
    """float32 [texts, dimensions]; where they were asked for, int8 [texts, dimensions], or, binary, uint8 [texts,
    ceil(dimensions / 8)] with the most significant bit first."""
    dimensions: int
    """Numbers of a vector."""
    model: str
    usage: Usage
    timing: Timing

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True, slots=True, eq=False)
class SparseEmbedResult:
    """Sparse vectors in input order, row after row (CSR).

    With scipy: ``scipy.sparse.csr_array((found.values, found.indices, found.offsets), shape=found.shape)``.
    """

    indices: UInt32Array
    """[weights] the dimensions that have a weight, which are ids of tokens; ascending within a row."""
    values: Float32Array
    """[weights] each above 0."""
    counts: UInt32Array
    """[texts] how many weights each row has."""
    dimensions: int
    """Length of a whole vector: the size of the vocabulary."""
    model: str
    usage: Usage
    timing: Timing

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def shape(self) -> tuple[int, int]:
        """Texts and dimensions."""
        return len(self), self.dimensions

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """[texts + 1] where each row begins in ``indices`` and ``values``, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])

    def rows(self) -> list[tuple[UInt32Array, Float32Array]]:
        """Indices and values of each text, as views."""
        begins = self.offsets.tolist()
        return [(self.indices[begin:end], self.values[begin:end]) for begin, end in itertools.pairwise(begins)]

    def to_dense(self) -> Float32Array:
        """float32 [texts, dimensions]: much memory where the vocabulary is large."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(len(self)), self.counts), self.indices] = self.values
        return dense


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a server has loaded."""

    name: str
    kind: ModelKind
    variant: str
    """The variant that serves, e.g. ``cpu-int8``."""
    provider: str
    """What runs it, e.g. ``CPUExecutionProvider``."""
    max_length: int
    """Most tokens of an input."""
    workers: int
    """Threads that run batches, shared by all models."""
    intra_op_threads: int
    bucket_lengths: tuple[int, ...]
    """Sequence lengths that are computed, ascending."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """A loaded model with its whole manifest."""

    model: Model
    manifest: manifest_pb2.ModelManifest = field(repr=False)
    """Labels, activation, pooling, prompts, variants, parity: see protos/pairwire/v1/manifest.proto."""


def merge_scores(parts: Sequence[ScoreResult]) -> ScoreResult:
    """One result of the parts of one input, in order.

    Raises:
        ServerFault: the parts come from different models.
    """
    if len(parts) == 1:
        return parts[0]
    check_same([(part.model, part.labels) for part in parts])
    return ScoreResult(
        scores=np.concatenate([part.scores for part in parts]),
        labels=parts[0].labels,
        model=parts[0].model,
        usage=merge_usage([part.usage for part in parts]),
        timing=merge_timing([part.timing for part in parts]),
    )


def merge_ranked(parts: Sequence[RerankResult], top_k: int | None) -> RerankResult:
    """The ``top_k`` best of the best of each part; what has no score comes last.

    Raises:
        ServerFault: the parts come from different models.
    """
    check_same([part.model for part in parts])
    every = [document for part in parts for document in part]
    ranked = sorted((found for found in every if found.scored), key=lambda found: (-found.score, found.index))
    ranked += [found for found in every if not found.scored]  # in the order of each part, and of the parts
    return RerankResult(
        results=tuple(ranked[:top_k]),
        model=parts[0].model,
        usage=merge_usage([part.usage for part in parts]),
        timing=merge_timing([part.timing for part in parts]),
        first_stage=parts[0].first_stage,  # there is one part then
        unscored=sum(part.unscored for part in parts),
        unscored_reason=next((part.unscored_reason for part in parts if part.unscored), ""),
    )


def merge_embeddings(parts: Sequence[EmbedResult]) -> EmbedResult:
    """One result of the parts of one input, in order.

    Raises:
        ServerFault: the parts come from different models.
    """
    if len(parts) == 1:
        return parts[0]
    check_same([(part.model, part.dimensions, part.embeddings.dtype) for part in parts])
    return EmbedResult(
        embeddings=np.concatenate([part.embeddings for part in parts]),
        dimensions=parts[0].dimensions,
        model=parts[0].model,
        usage=merge_usage([part.usage for part in parts]),
        timing=merge_timing([part.timing for part in parts]),
    )


def merge_sparse(parts: Sequence[SparseEmbedResult]) -> SparseEmbedResult:
    """One result of the parts of one input, in order.

    Raises:
        ServerFault: the parts come from different models.
    """
    if len(parts) == 1:
        return parts[0]
    check_same([(part.model, part.dimensions) for part in parts])
    return SparseEmbedResult(
        indices=np.concatenate([part.indices for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
        dimensions=parts[0].dimensions,
        model=parts[0].model,
        usage=merge_usage([part.usage for part in parts]),
        timing=merge_timing([part.timing for part in parts]),
    )


def merge_usage(parts: Sequence[Usage]) -> Usage:
    """The sum; indices are of the whole input already."""
    return Usage(
        tokens=sum(part.tokens for part in parts),
        padded_tokens=sum(part.padded_tokens for part in parts),
        truncated_inputs=tuple(index for part in parts for index in part.truncated_inputs),
    )


def merge_timing(parts: Sequence[Timing]) -> Timing:
    """The sum of the server's parts; ``elapsed_s`` is measured from the call's beginning, so the last one counts."""
    return Timing(
        queue_s=sum(part.queue_s for part in parts),
        tokenize_s=sum(part.tokenize_s for part in parts),
        compute_s=sum(part.compute_s for part in parts),
        elapsed_s=max(part.elapsed_s for part in parts),
        requests=sum(part.requests for part in parts),
    )


def check_same(answers: Sequence[object]) -> None:
    """Raises ServerFault: parts of one input were answered by servers that serve different things."""
    for answer in answers:
        if answer != answers[0]:
            raise ServerFault(
                f"the servers behind this client serve different models: one answered {answers[0]}, another {answer}"
            )
