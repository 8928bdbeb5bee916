"""The one public class: several models, one queue, one pool of workers, behind three coroutines."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from ..clock import Clock, SystemClock
from .batching.planner import OptimalCover, Planner
from .batching.scheduler import BatchingRules, Scheduler
from .cache import ByteCache
from .call import Calls, Pairs
from .config import EngineConfig
from .first_stage import Asked, FirstStage, StagedResult, Stages
from .kinds import ModelKind
from .models.catalog import Catalog
from .models.loading import load_model
from .models.memory import bring_to_height
from .models.model import Model, on_gpu
from .observer import Observer, SafeObserver
from .off_loop import off_loop
from .open_requests import OpenRequests
from .outputs.sparse import INLINE_ROWS, check_size, to_sparse
from .results import (
    ClassifyOptions,
    ClassifyResult,
    EmbedOptions,
    EmbedResult,
    EngineStatistics,
    ModelInfo,
    ReadingOptions,
    ScoreOptions,
    ScoreResult,
    SparseOptions,
    SparseResult,
)
from .running.score_cache import ScoreCache
from .running.worker import WorkerPool
from .statistics import snapshot
from .text.given import listed
from .text.pieces import TokenisedText
from .text.stage import TextStage
from .text.token_ids import Text, TokenIds
from .text.whole_rows import Integers, pairs_of, texts_of
from .tokens import TokenCalls
from .watchdog import Watchdog
from .zero_shot import classify

logger = logging.getLogger(__name__)


class Engine:
    """Scores pairs and embeds texts. Its coroutines belong to one event loop; ``statistics`` may be called anywhere.

    Give each ``open`` one ``close``, or use it in ``async with``. Example::

        async with await Engine.open("models/demo") as engine:
            result = await engine.score([("a", "b")], timeout_s=1)  # .scores float32 [1, labels]
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        planner: Planner | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """An engine over models that are loaded already; starts its threads.

        ``on_fatal`` is called once, from a thread of the engine, when it can serve nothing any more. It gets a RunStuck
        where a run hangs and cannot be ended: the process that has it should end. ``watchdog`` is the engine's own
        unless it is given.

        Raises:
            ConfigInvalid: no model, or two of one name.
        """
        self._config = config or EngineConfig()
        self._clock = clock or SystemClock()
        self._observer = SafeObserver(observer)
        self._catalog = Catalog(models)
        cuda = on_gpu(self._catalog.models.values())
        workers = self._config.worker_count(cuda=cuda)
        self.models: Mapping[str, ModelInfo] = MappingProxyType(
            {name: model.info(workers) for name, model in self._catalog.models.items()}
        )
        """The loaded models by name."""
        self._tokens = {name: ByteCache(self._config.token_cache_bytes) for name in self._catalog.models}
        self._scores = ScoreCache(self._config.score_cache_bytes)
        self._text = TextStage(
            self._config.text_thread_count(cuda=cuda),
            queue_tokens=self._config.queue_tokens,
            wait_s=lambda: self.statistics().estimated_wait_s,
        )
        self._stages = Stages(self._catalog, cache_bytes=self._config.vector_cache_bytes, clock=self._clock)
        self._tokenising = TokenCalls(self._text)
        self._open = OpenRequests()
        self._closed = False
        self.watchdog = watchdog or Watchdog(self._config.hang_timeout_s, clock=self._clock)
        """What ends runs that hang."""
        self._workers = WorkerPool(
            Scheduler(
                {
                    name: BatchingRules(model.ladder, model.costs, model.planner)
                    for name, model in self._catalog.models.items()
                },
                planner or OptimalCover(self._config.latency_target_s),
                workers=workers,
                queue_tokens=self._config.queue_tokens,
                queue_s=self._config.queue_s,
                low_queue_s=self._config.low_queue_s,
                weights=self._config.weights(),
                random=random.random,
            ),
            self._catalog.models,
            scores=self._scores,
            workers=workers,
            queue_tokens=self._config.queue_tokens,
            clock=self._clock,
            observer=self._observer,
            watchdog=self.watchdog,
            probe_interval_s=self._config.probe_interval_s,
            on_fatal=on_fatal or (lambda error: None),
        )
        self._calls = Calls(
            self._text,
            self._workers,
            token_caches=self._tokens,
            clock=self._clock,
            observer=self._observer,
            default_timeout_s=self._config.default_deadline_s or None,
        )

    @classmethod
    async def open(
        cls,
        *packages: Path | str,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> Self:
        """Loads, verifies and warms model packages, one after the other, and starts serving.

        Raises:
            PackageInvalid: a package is missing, damaged, too new, or its graph does not run.
            ConfigInvalid: no package, or two models of one name.
            RuntimeMissing: neither or both onnxruntime wheels are installed.
        """
        settings = config or EngineConfig()
        models: list[Model] = []
        watchdog = Watchdog(settings.hang_timeout_s, clock=clock or SystemClock(), on_stuck=on_fatal)
        try:
            for package in packages:
                models.append(await asyncio.to_thread(load_model, package, settings, watchdog=watchdog))
            await asyncio.to_thread(bring_to_height, models, settings.worker_count(cuda=on_gpu(models)), watchdog)
            return cls(models, config=settings, clock=clock, observer=observer, on_fatal=on_fatal, watchdog=watchdog)
        except BaseException:
            watchdog.close()
            for model in models:
                model.runtime.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def find(self, name: str, kind: ModelKind | None = None) -> ModelInfo:
        """The model that a call of this ``name`` means; the name may be empty where only one (of the kind) is loaded.

        Raises:
            ModelNotFound, WrongModelKind, InvalidInput: there is no such model; the sentence lists what there is.
        """
        return self.models[self._catalog.resolve(name, kind).name]

    async def score(
        self,
        pairs: Sequence[tuple[Text, Text]],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores of pairs of texts, in input order. A text without a prompt before it may be given as `TokenIds`.

        ``model`` may be empty where exactly one cross-encoder is loaded. ``timeout_s`` counts from now until the
        answer; None waits as long as it takes.

        Raises:
            InvalidInput: no pairs, a text that is not valid Unicode or does not fit, a token id or prompt that the
                model does not know, more than the whole queue holds.
            ModelNotFound, WrongModelKind: see the message.
            Overloaded: the queue has no room now.
            DeadlineExceeded: it took, or would take, longer than ``timeout_s``.
            NotReady: draining or closed.
            EngineFault: the model failed. Where it fails on one input alone, that is InvalidInput and names it.
        """
        scorer = self._catalog.resolve(model, ModelKind.CROSS_ENCODER)
        return await self._calls.score(scorer, Pairs.of(pairs), options or ScoreOptions(), timeout_s, self._open.accept)

    async def score_documents(
        self,
        query: Text,
        documents: Sequence[Text],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores of (query, document) for each document, in input order; the query is tokenised once.

        Arguments and errors as ``score``; errors name ``query`` and ``documents[i]``.
        """
        scorer = self._catalog.resolve(model, ModelKind.CROSS_ENCODER)
        given = Pairs.of_documents(query, documents)
        return await self._calls.score(scorer, given, options or ScoreOptions(), timeout_s, self._open.accept)

    async def rerank(
        self,
        query: Text,
        documents: Sequence[Text],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
        partial_ok: bool = False,
    ) -> ScoreResult:
        """As ``score_documents``, of a model whose one score can rank them; ``rank`` sorts the answer.

        ``partial_ok``: where there is no time or no room for all documents, those that there is for are scored, the
        first ones; ``unscored`` tells which are not, and why. Documents that are not read are not checked.

        Errors as ``score_documents``; a cross-encoder with several labels is WrongModelKind too, and an activation
        that makes every score 1 is InvalidInput.
        """
        options = options or ScoreOptions()
        scorer = self._catalog.resolve_ranker(model, options.activation)
        given = Pairs.of_documents(query, documents)
        return await self._calls.score(scorer, given, options, timeout_s, self._open.accept, partial=partial_ok)

    async def retrieve_and_rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        first_stage: FirstStage,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
        partial_ok: bool = False,
    ) -> StagedResult:
        """Both scores of the documents that a bi-encoder finds nearest to the query, in input order.

        ``model`` is the cross-encoder, ``timeout_s`` is for both stages together. Also where all documents are kept,
        there are two scores. ``partial_ok`` as ``rerank``, but the nearest documents are scored first; where there is
        no time for the first stage either, it is as if it had kept the first documents. Errors as ``score_documents``
        and ``embed``, with the fields of ``first_stage`` as ``first_stage.model`` and so on; a cross-encoder with
        several labels is WrongModelKind too.
        """
        given = listed("documents", documents)
        asked = Asked(query, given, first_stage, model, options or ScoreOptions(), timeout_s, partial_ok)
        with self._open.accept():
            return await self._stages.serve(self._calls, asked)

    async def score_texts(
        self,
        texts: Sequence[Text],
        *,
        model: str = "",
        options: ScoreOptions | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores of single texts by a cross-encoder, as a text classifier reads them: one text a row, no pair.

        Arguments and errors as ``score``; a model with a template for pairs is WrongModelKind.
        """
        scorer = self._catalog.resolve(model, ModelKind.CROSS_ENCODER)
        given = listed("texts", texts)
        return await self._calls.score_texts(scorer, given, options or ScoreOptions(), timeout_s, self._open.accept)

    async def classify(
        self,
        texts: Sequence[Text],
        candidate_labels: Sequence[str],
        *,
        model: str = "",
        options: ClassifyOptions | None = None,
        timeout_s: float | None = None,
    ) -> ClassifyResult:
        """How well each label describes each text, by an NLI model: zero-shot classification.

        ``model`` may be empty where exactly one cross-encoder has a label that is called entailment. Errors as
        ``score``, and they name ``texts[i]`` and ``candidate_labels[i]``; a ``hypothesis_template`` without a place for
        the label is InvalidInput, a model that does not know entailment WrongModelKind.
        """
        classifier = self._catalog.resolve_classifier(model)
        options = options or ClassifyOptions()
        accept = self._open.accept
        return await classify(self._calls, classifier, texts, candidate_labels, options, timeout_s, accept)

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        model: str = "",
        options: EmbedOptions | None = None,
        timeout_s: float | None = None,
    ) -> EmbedResult:
        """Vectors of texts, in input order, with the checkpoint's own pooling and normalisation.

        Arguments and errors as ``score``; an unknown ``prompt_name`` is InvalidInput and lists the known ones, and so
        are more ``dimensions`` than a vector has.
        """
        encoder = self._catalog.resolve(model, ModelKind.BI_ENCODER)
        return await self._calls.embed(
            encoder, listed("texts", texts), options or EmbedOptions(), timeout_s, self._open.accept
        )

    async def embed_sparse(
        self,
        texts: Sequence[Text],
        *,
        model: str = "",
        options: SparseOptions | None = None,
        timeout_s: float | None = None,
    ) -> SparseResult:
        """Sparse vectors of texts, in input order: the tokens of the vocabulary that have weight, and their weights.

        Arguments and errors as ``embed``; ``model`` may be empty where exactly one sparse encoder is loaded. Too many
        texts for the vocabulary are InvalidInput (`outputs.sparse.MOST_BYTES`), and so is no ``input_type`` where the
        model needs one.
        """
        options, texts = options or SparseOptions(), listed("texts", texts)
        loaded = self._catalog.resolve(model, ModelKind.SPARSE_ENCODER)
        keep, table = loaded.active_dims(options.max_active_dims), loaded.table_for(options.input_type)
        if table is not None:
            call = self._calls.reading(loaded, texts, options, timeout_s, table.encoder)
            rows = await self._calls.read(call, self._open.accept)
            weights = await off_loop(len(rows) > INLINE_ROWS, table.look_up, rows, keep)
            return SparseResult(
                *weights, dimensions=loaded.outputs, model=loaded.name, usage=call.usage, timing=call.timing
            )
        check_size(len(texts), loaded.outputs)
        call = self._calls.reading(loaded, texts, options, timeout_s)
        dense = await self._calls.serve(call, self._open.accept)
        weights = await off_loop(len(dense) > INLINE_ROWS, to_sparse, dense, keep)
        return SparseResult(
            *weights, dimensions=loaded.outputs, model=loaded.name, usage=call.usage, timing=call.timing
        )

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        add_special_tokens: bool = True,
        options: ReadingOptions | None = None,
        timeout_s: float | None = None,
    ) -> list[TokenisedText]:
        """All tokens of each text, uncut, as a model's tokenizer makes them of a single text.

        Of the options the prompt and the caller count; without a prompt there is the checkpoint's default one, if any.

        Raises:
            InvalidInput, ModelNotFound, Overloaded, DeadlineExceeded, NotReady: as ``embed``.
        """
        reader = self._catalog.resolve(model, None)
        with self._open.accept():
            given, options = listed("texts", texts), options or ReadingOptions()
            return await self._tokenising.tokenize(reader, given, options, timeout_s, add_special_tokens)

    async def decode(
        self,
        ids: Sequence[TokenIds],
        *,
        model: str = "",
        skip_special_tokens: bool = True,
        options: ReadingOptions | None = None,
        timeout_s: float | None = None,
    ) -> list[str]:
        """Texts that have these tokens. Errors as ``tokenize``; ids outside the vocabulary are InvalidInput."""
        reader = self._catalog.resolve(model, None)
        with self._open.accept():
            given, options = listed("ids", ids), options or ReadingOptions()
            return await self._tokenising.decode(reader, given, options, timeout_s, skip_special_tokens)

    def texts_of_rows(self, ids: Integers, mask: Integers | None, *, model: str = "") -> list[TokenIds]:
        """What is in rows [rows, length] of token ids, with special tokens and padding; mask 0 hides padding.

        Raises:
            InvalidInput: a row that the model's tokenizer would not have made of a text; the field is ``input_ids[i]``.
        """
        return texts_of(self._catalog.resolve(model, None).encoder.single, ids, mask, "input_ids")

    def pairs_of_rows(
        self, ids: Integers, mask: Integers | None, types: Integers | None = None, *, model: str = ""
    ) -> list[tuple[TokenIds, TokenIds]]:
        """As ``texts_of_rows``, of pairs; token types, where they are given, must be the model's own."""
        return pairs_of(self._catalog.resolve(model, None).encoder.pair, ids, mask, types, "input_ids")

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        return snapshot(
            self._workers, self._open, self._stages, self._scores, self._tokens, self.models, self._config.queue_tokens
        )

    async def drain(self) -> None:
        """Refuses new work with NotReady; returns when all accepted work is answered. May be called more than once."""
        self._open.draining = True
        await self._open.wait_idle()

    async def close(self, limit_s: float | None = None) -> None:
        """Waiting work fails with NotReady, running batches end, threads and graphs are freed. Idempotent.

        What still runs after ``limit_s`` is asked to end. Where a thread does not end even so, what it uses is kept.
        """
        if self._closed:
            return
        self._closed = self._open.draining = True
        ended = await asyncio.to_thread(self._workers.stop, limit_s)
        try:
            async with asyncio.timeout(limit_s):
                await self._open.wait_idle()  # calls that are being tokenised find the workers gone
        except TimeoutError:
            ended = False
        self._text.close()
        if not ended:
            return
        for model in self._catalog.models.values():
            model.runtime.close()
