"""What callers of the engine give and get: plain frozen values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..runtime.base import CudaInfo, Float32Array, RuntimeInfo, UInt32Array
from .batching.priority import Priority
from .cache import CacheStatistics
from .kinds import InputType, ModelKind
from .outputs.heads import Activation
from .text.truncation import Truncation, TruncationDirection

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import ModelManifest


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingOptions:
    """How texts are read, whatever is made of them."""

    prompt_name: str | None = None
    """Which of the checkpoint's prompts is put before every text (of a pair: the first); None means the default one."""
    prompt: str | None = None
    """A prompt as text, instead of a name; empty for none at all."""
    truncation: Truncation = Truncation.LONGEST_FIRST
    truncation_direction: TruncationDirection | None = None
    """Which end of a too long text is cut off; None means the one that the checkpoint says."""
    max_length: int | None = None
    """Most tokens of an input, special tokens included; None means the model's own limit, which it may not exceed."""
    priority: Priority = Priority.NORMAL
    """What it may overtake in the queue."""
    caller: str = ""
    """Whom it is for; callers share the machine fairly, whatever each of them sends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreOptions(ReadingOptions):
    """How pairs are scored."""

    activation: Activation | None = None
    """What turns logits into scores; None means the checkpoint's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions(ReadingOptions):
    """How texts are embedded."""

    dimensions: int | None = None
    """Matryoshka: how many of the first numbers of a vector are kept; None means what the checkpoint gives."""
    normalize: bool | None = None
    """Unit length after the cut; None leaves vectors as the checkpoint makes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseOptions(ReadingOptions):
    """How texts become sparse vectors."""

    max_active_dims: int | None = None
    """How many of the largest weights of each text are kept; None means what the checkpoint does, which may be all."""
    input_type: InputType | None = None
    """What the texts are. Models that read queries in another way heed it; None means what the checkpoint does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyOptions(ReadingOptions):
    """How texts are classified by labels that the caller makes up (`zero_shot`)."""

    prompt: str | None = ""
    """None of the checkpoint's either: what is read is the text and a hypothesis."""
    truncation: Truncation = Truncation.ONLY_FIRST
    """Of a text that is too long; a hypothesis is read whole."""
    hypothesis_template: str | None = None
    """A sentence with ``{}`` where the label goes; None means that of `zero_shot.DEFAULT_TEMPLATE`."""
    multi_label: bool = False
    """Each label is judged by itself, so that several may be true; else the scores of a text add up to 1."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost."""

    tokens: int
    """Tokens of all its rows, after truncation, special tokens included: also of those that were not computed because
    an equal row was, or because their result was cached. What a request costs does not depend on its neighbours."""
    padded_tokens: int
    """Padding computed in rows that were queued for this request."""
    truncated_inputs: tuple[int, ...]
    """Ascending indices of the inputs that were cut."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in seconds; the three do not overlap."""

    queue_s: float
    """From admission until its first batch began."""
    tokenize_s: float
    """Tokenising and truncating, the wait for a tokenising thread included; where computing begins before all is
    tokenised, until it may."""
    compute_s: float
    """From the start of its first batch to the end of its last."""


class UnscoredReason(Enum):
    """Why rows of a partial result have no score."""

    DEADLINE = "deadline"
    """They would not have been done, or were not, before the deadline."""
    OVERLOADED = "overloaded"
    """The queue had no room for them."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """The rows of a partial result that have no score."""

    indices: tuple[int, ...]
    """Ascending; at least one."""
    reason: UnscoredReason
    sentence: str
    """For a person."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores of pairs, in input order."""

    scores: Float32Array
    """[pairs, labels] float32, the caller's own; NaN where ``unscored`` says so."""
    labels: tuple[str, ...]
    model: str
    """Name of the model that answered."""
    usage: Usage
    timing: Timing
    unscored: Unscored | None = None
    """Only of requests that take a partial result."""


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """Scores of candidate labels, in the order in which texts and labels were given."""

    scores: Float32Array
    """[texts, candidate labels] float32, each from 0 to 1, the caller's own."""
    model: str
    """Name of the model that answered."""
    usage: Usage
    """``truncated_inputs`` are texts."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Vectors of texts, in input order."""

    embeddings: Float32Array
    """[texts, dimensions] float32, the caller's own."""
    model: str
    """Name of the model that answered."""
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class SparseResult:
    """Sparse vectors of texts, in input order, row after row (CSR)."""

    indices: UInt32Array
    """[weights] uint32: the dimensions that have a weight, which are ids of tokens; ascending within a row."""
    values: Float32Array
    """[weights] float32, each above 0."""
    counts: UInt32Array
    """[texts] uint32: how many weights each row has."""
    dimensions: int
    """Length of a whole vector: the size of the vocabulary."""
    model: str
    """Name of the model that answered."""
    usage: Usage
    timing: Timing


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A loaded model, for people and for GetModel."""

    name: str
    kind: ModelKind
    manifest: ModelManifest
    variant: str
    """Name of the variant that serves, e.g. ``cpu-int8``."""
    max_length: int
    """Most tokens of a row, special tokens included."""
    bucket_lengths: tuple[int, ...]
    """Sequence lengths of the ladder, ascending."""
    runtime: RuntimeInfo
    workers: int
    """Threads that run batches, shared by all models of the engine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatistics:
    """One model at one moment."""

    healthy: bool
    """False from a failed run until a probe succeeds."""
    queued_rows: int
    queued_tokens: int
    running_rows: int
    shared_rows: int
    """Rows since the start that were answered with the result of an equal row, of the same or another request."""
    token_cache: CacheStatistics
    vector_cache: CacheStatistics | None = None
    """Bi-encoders: vectors of documents, for requests with a first stage."""
    cuda: CudaInfo | None = None
    """On an NVIDIA GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatistics:
    """The engine at one moment."""

    workers: int
    queued_rows: int
    queued_tokens: int
    queue_limit_tokens: int
    running_rows: int
    running_batches: int
    open_requests: int
    """Requests accepted and not yet answered, those being tokenised included."""
    estimated_wait_s: float
    """When a row that came now would be done, if it came last: by the cost tables."""
    capacity_tokens_per_s: float
    """Tokens that all workers do in a second, of such text as came lately."""
    score_cache: CacheStatistics
    draining: bool
    failed: bool
    """True once a worker has died: nothing will be served any more."""
    models: Mapping[str, ModelStatistics]
