"""Retrieve, then rerank: a bi-encoder compares all documents with the query, a cross-encoder reads the nearest.

The first stage embeds what it has not embedded before, each distinct text once, and reads texts as the bi-encoder's
checkpoint does: up to its own limit, of what is longer the beginning. What a request says of truncation and of
``max_length`` is about pairs. Both stages are ordinary calls of the engine, with the request's priority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..clock import Clock
from ..errors import DeadlineExceeded, InvalidInput, Overloaded, WrongModelKind
from ..runtime.base import Float32Array
from .anytime import answer_after
from .cache import CacheStatistics
from .call import Calls, Pairs
from .kinds import ModelKind
from .models.catalog import Catalog
from .models.model import Model
from .off_loop import at_once
from .outputs.similarity import SIMILARITIES, Similarity
from .results import EmbedOptions, EmbedResult, ScoreOptions, ScoreResult, Timing, Unscored, UnscoredReason, Usage
from .text.token_ids import Text, TokenIds, check_texts
from .vector_cache import VectorCache

Indices = npt.NDArray[np.int64]

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Prompts that sentence-transformers' encode_query and encode_document look for, in that order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstStage:
    """How a bi-encoder chooses.

    Raises:
        InvalidInput: on construction, where ``keep`` is less than 1.
    """

    model: str = ""
    """The bi-encoder; may be empty where exactly one is loaded."""
    keep: int
    """Documents that go on to the cross-encoder; more than there are means all."""
    query_prompt_name: str | None = None
    """None means "query", or else the checkpoint's default prompt."""
    document_prompt_name: str | None = None
    """None means the first of "document", "passage" and "corpus" that there is, or else the checkpoint's default."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise InvalidInput("first_stage.keep", f"{self.keep} is not a number of documents; at least 1")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of two stages."""

    query: str
    documents: Sequence[str]
    first_stage: FirstStage
    model: str
    options: ScoreOptions
    timeout_s: float | None
    partial_ok: bool = False


@dataclass(frozen=True, slots=True)
class FirstStageReport:
    """What the first stage did."""

    model: str
    """The bi-encoder that answered."""
    kept: int
    """Documents that went on to the cross-encoder."""
    cached: int
    """Documents whose vectors were known already."""
    usage: Usage
    """Of the texts that had to be embedded; ``truncated_inputs`` are documents."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class StagedResult:
    """Both scores of the documents that the first stage kept, in input order."""

    indices: Indices
    """[kept] int64, ascending: which of the documents they are."""
    scores: Float32Array
    """[kept] float32, of the cross-encoder; NaN where ``unscored`` says so."""
    first_stage_scores: Float32Array
    """[kept] float32: similarity of query and document; NaN where there was no time or room for the first stage."""
    model: str
    """The cross-encoder that answered."""
    usage: Usage
    """Of the cross-encoder; ``truncated_inputs`` are documents."""
    timing: Timing
    first_stage: FirstStageReport
    unscored: Unscored | None = None
    """Documents that the cross-encoder has not read; only of requests that take a partial result."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """Similarities [documents] and what they took."""

    similarities: Float32Array
    cached: int
    usage: Usage
    timing: Timing


class Stages:
    """Serves requests of two stages, and keeps vectors of documents for each bi-encoder."""

    def __init__(self, catalog: Catalog, *, cache_bytes: int, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._caches = {
            model.name: VectorCache(cache_bytes, model)
            for model in catalog.models.values()
            if model.kind is ModelKind.BI_ENCODER
        }

    def cache_statistics(self, model: str) -> CacheStatistics | None:
        """A snapshot of a bi-encoder's vectors; None for other models."""
        cache = self._caches.get(model)
        return None if cache is None else cache.statistics()

    async def serve(self, calls: Calls, asked: Asked) -> StagedResult:
        """Runs both stages; see ``Engine.retrieve_and_rerank``."""
        asked = replace(asked, timeout_s=calls.timeout_of(asked.timeout_s))
        scorer = self._catalog.resolve_ranker(asked.model, asked.options.activation)
        scorer.prompt(asked.options.prompt_name, asked.options.prompt)  # what is wrong is reported before anything runs
        scorer.encoder.pair_limit(asked.options.max_length)
        with _named(model="first_stage.model"):
            encoder = self._catalog.resolve(asked.first_stage.model, ModelKind.BI_ENCODER)
        if not asked.documents:
            raise InvalidInput.empty("documents")
        _check_texts([asked.query], "query")
        if asked.partial_ok and asked.timeout_s is not None:
            asked = replace(asked, timeout_s=answer_after(asked.timeout_s))
        began = self._clock.monotonic()
        comparison = _Comparison(calls, encoder, self._caches[encoder.name], asked)
        try:
            compared = await comparison.run()
        except (Overloaded, DeadlineExceeded) as error:
            if not asked.partial_ok:
                raise
            return _without_comparison(asked, scorer, encoder, error)
        indices = nearest(compared.similarities, asked.first_stage.keep)
        order = indices
        if asked.partial_ok:  # what is scored first should be what is nearest
            order = indices[np.argsort(-compared.similarities[indices], kind="stable")]
        scored = await self._score(calls, scorer, asked, order, self._clock.monotonic() - began)
        return StagedResult(
            indices=indices,
            scores=scored.scores[np.argsort(order), 0],
            first_stage_scores=compared.similarities[indices],
            model=scored.model,
            usage=_usage_of(scored.usage, order),
            timing=scored.timing,
            first_stage=FirstStageReport(encoder.name, len(indices), compared.cached, compared.usage, compared.timing),
            unscored=_unscored_of(scored.unscored, order),
        )

    async def _score(
        self, calls: Calls, scorer: Model, asked: Asked, indices: Indices, elapsed_s: float
    ) -> ScoreResult:
        left_s = None if asked.timeout_s is None else asked.timeout_s - elapsed_s
        if left_s is not None and left_s <= 0 and not asked.partial_ok:
            raise DeadlineExceeded(f"the first stage alone took {elapsed_s:.3f} s; allow more time or send less")
        documents = [asked.documents[index] for index in indices.tolist()]
        with _named(places=indices.tolist()):
            try:
                given = Pairs.of_documents(asked.query, documents)
                return await calls.score(scorer, given, asked.options, left_s, partial=asked.partial_ok)
            except DeadlineExceeded as error:
                raise DeadlineExceeded(f"{error} (the first stage took {elapsed_s:.3f} s)") from None


class _Comparison:
    """The first stage of one request."""

    def __init__(self, calls: Calls, encoder: Model, cache: VectorCache, asked: Asked) -> None:
        stage, prompts = asked.first_stage, encoder.prompts
        self._calls, self._encoder, self._cache, self._asked = calls, encoder, cache, asked
        self._similarity = _similarity_of(encoder)
        self._query_prompt = _first_known(stage.query_prompt_name, QUERY_PROMPTS, prompts)
        self._document_prompt = _first_known(stage.document_prompt_name, DOCUMENT_PROMPTS, prompts)
        with _named(prompt_name="first_stage.query_prompt_name"):
            encoder.prompt(self._query_prompt)
        with _named(prompt_name="first_stage.document_prompt_name"):
            self._prompt = encoder.prompt(self._document_prompt)

    async def run(self) -> _Compared:
        """Similarities of all documents."""
        keys, known = await asyncio.to_thread(self._look_up)
        missing = [place for place, vector in enumerate(known) if vector is None]
        query, new = await self._embed(missing)
        similarities = await asyncio.to_thread(self._compare, query.embeddings[0], known, keys, missing, new)
        unknown = np.zeros(len(self._texts), np.bool_)
        unknown[missing] = True
        return _Compared(
            similarities=similarities,
            cached=int(np.count_nonzero(~unknown[self._at])),
            usage=self._usage(query, new, missing),
            timing=query.timing if new is None else max(query.timing, new.timing, key=_total_s),
        )

    def _look_up(self) -> tuple[list[bytes], list[Float32Array | None]]:
        _check_texts(self._asked.documents, "documents[{}]")
        # A text that comes twice is looked at once. Megabytes of text are hashed for that: not on the event loop.
        first: dict[str, int] = {}
        at = [first.setdefault(text, index) for index, text in enumerate(self._asked.documents)]
        self._texts, self._first = list(first), np.array(list(first.values()))
        self._at = np.searchsorted(self._first, at)
        if not self._cache:
            return [], [None] * len(self._texts)
        keys = self._cache.keys_of(self._prompt, self._texts)
        return keys, self._cache.get(keys)

    async def _embed(self, missing: Sequence[int]) -> tuple[EmbedResult, EmbedResult | None]:
        """The query, and at the same time those of the texts, where there are some."""
        asked = self._asked

        async def embed(
            field: str, given: Sequence[str], prompt_name: str | None, places: Sequence[int] = ()
        ) -> EmbedResult:
            given_options = asked.options
            options = EmbedOptions(
                prompt_name=prompt_name, priority=given_options.priority, caller=given_options.caller
            )
            with _named(places, texts=field):
                return await self._calls.embed(self._encoder, given, options, asked.timeout_s)

        query = embed("query", [asked.query], self._query_prompt)
        if not missing:
            return await query, None
        texts, places = [self._texts[place] for place in missing], self._first[missing].tolist()
        first, second = await at_once(query, embed("documents", texts, self._document_prompt, places))
        return first, second

    def _compare(
        self,
        query: Float32Array,
        known: Sequence[Float32Array | None],
        keys: Sequence[bytes],
        missing: Sequence[int],
        new: EmbedResult | None,
    ) -> Float32Array:
        """Similarities [documents]; what is new is kept."""
        vectors = np.empty((len(known), len(query)), np.float32)
        for place, vector in enumerate(known):
            if vector is not None:
                vectors[place] = vector
        if new is not None:
            vectors[missing] = new.embeddings
            if self._cache:
                self._cache.put([keys[place] for place in missing], new.embeddings)
        similarities: Float32Array = self._similarity(query, vectors)[self._at]
        return similarities

    def _usage(self, query: EmbedResult, new: EmbedResult | None, missing: Sequence[int]) -> Usage:
        if new is None:
            return Usage(query.usage.tokens, query.usage.padded_tokens, ())
        cut = [missing[index] for index in new.usage.truncated_inputs]
        return Usage(
            tokens=query.usage.tokens + new.usage.tokens,
            padded_tokens=query.usage.padded_tokens + new.usage.padded_tokens,
            truncated_inputs=tuple(np.flatnonzero(np.isin(self._at, cut)).tolist()),
        )


@contextmanager
def _named(places: Sequence[int] = (), **names: str) -> Iterator[None]:
    """Gives errors the field's name in the whole request, and what has an index its place among ``places``."""
    try:
        yield
    except InvalidInput as error:
        root, _, index = error.field.removesuffix("]").partition("[")
        field = names.get(root, root)
        if index and places:
            field = f"{field}[{places[int(index)]}]"
        raise InvalidInput(field, error.reason) from None


def nearest(similarities: Float32Array, keep: int) -> Indices:
    """Ascending indices of the ``keep`` largest of similarities [documents]; of equal ones, the first."""
    return np.sort(np.argsort(-similarities, kind="stable")[:keep])


def _check_texts(texts: Sequence[Text], pattern: str) -> None:
    check_texts(texts, pattern)
    for index, text in enumerate(texts):
        if isinstance(text, TokenIds):
            reason = "token ids belong to the vocabulary of one model, and two read this; give text"
            raise InvalidInput(pattern.format(index), reason)


def _similarity_of(encoder: Model) -> Similarity:
    name = encoder.manifest.similarity
    if name not in SIMILARITIES:
        known = ", ".join(filter(None, SIMILARITIES))
        raise WrongModelKind(
            f"model {encoder.name!r} compares vectors by {name!r}; this version knows {known}: upgrade pairwire"
        )
    return SIMILARITIES[name]


def _first_known(asked: str | None, usual: Sequence[str], prompts: Mapping[str, str]) -> str | None:
    return asked if asked is not None else next((name for name in usual if name in prompts), None)


def _total_s(timing: Timing) -> float:
    return timing.queue_s + timing.tokenize_s + timing.compute_s


def _usage_of(usage: Usage, indices: Indices) -> Usage:
    cut = tuple(np.sort(indices[list(usage.truncated_inputs)]).tolist())
    return Usage(usage.tokens, usage.padded_tokens, cut)


def _unscored_of(unscored: Unscored | None, indices: Indices) -> Unscored | None:
    if unscored is None:
        return None
    return replace(unscored, indices=tuple(np.sort(indices[list(unscored.indices)]).tolist()))


def _without_comparison(
    asked: Asked, scorer: Model, encoder: Model, error: Overloaded | DeadlineExceeded
) -> StagedResult:
    """What is answered where there is no time or no room even for the first stage: the documents as they came."""
    indices = np.arange(min(asked.first_stage.keep, len(asked.documents)))
    unknown = np.full(len(indices), np.nan, np.float32)
    nothing, none = Usage(0, 0, ()), Timing(0.0, 0.0, 0.0)
    late = isinstance(error, DeadlineExceeded)
    reason = UnscoredReason.DEADLINE if late else UnscoredReason.OVERLOADED
    return StagedResult(
        indices=indices,
        scores=unknown,
        first_stage_scores=unknown,
        model=scorer.name,
        usage=nothing,
        timing=none,
        first_stage=FirstStageReport(encoder.name, len(indices), 0, nothing, none),
        unscored=Unscored(tuple(indices.tolist()), reason, error.message),
    )
