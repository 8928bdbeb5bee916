"""The blocking client: a thin skin over calls (aio.py is its twin)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pairwire.v1 import model_pb2

from . import calls, codec
from .cross_encoder import CrossEncoder
from .first_stage import FirstStage
from .inputs import (
    Activation,
    EmbedOptions,
    Encoding,
    Given,
    InputType,
    Pair,
    Priority,
    ScoreOptions,
    SparseOptions,
    Truncation,
    TruncationDirection,
)
from .results import EmbedResult, Model, ModelDetails, RerankResult, ScoreResult, SparseEmbedResult
from .sentence_encoder import SentenceEncoder
from .sparse_encoder import SparseEncoder
from .sync_connection import Connection
from .zero_shot import ClassifyOptions, ClassifyResult


class Client(Connection):
    """Scores, ranks, classifies and embeds on Pairwire servers. Thread-safe; make one and keep it.

    ``addresses`` is one address (``host:port``, ``dns:///name:port``) or several IP addresses with ports, which are
    called in turn. Nothing connects before the first call. Every method raises the errors of `pairwire.client.errors`,
    and takes ``timeout_s``, the seconds that a request may take, retries included: None means the client's own
    (``options.timeout_s``), infinity none at all. An input so large that it is split gets it for each of its requests.

    Example::

        with Client("localhost:50051") as client:
            client.score([("a man plays a guitar", "someone makes music")]).scores  # float32 [1]
            client.rerank("what causes tides?", ["bread", "the moon"], top_k=1)[0].document  # 'the moon'

    Raises:
        ValueError: an address without a port, or several that cannot be called in turn.
        OSError: a TLS file cannot be read.
    """

    def score(
        self,
        pairs: Iterable[Pair],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores each pair of texts; ``.scores`` is float32 [pairs], or [pairs, labels] of a model with several labels.

        A pair is two texts in a row, or a record such as ``{"query": ..., "document": ...}`` (`pairwire.client.given`).
        ``ScoreOptions`` tells what each option means. Texts may be `TokenIds`, all of a call or none. All of the input
        is checked before anything is sent.

        Raises:
            InvalidInput: no pairs, something that is not two texts, or an option out of range.
        """
        options = ScoreOptions(
            model=model,
            activation=activation,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            prompt_name=prompt_name,
            prompt=prompt,
        )
        return self._run(calls.score(pairs, options, self.options.split), timeout_s)

    def score_documents(
        self,
        query: str,
        documents: Iterable[Given],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores each document against the query, in input order: ``score`` without sending the query again and again.

        Raises:
            InvalidInput: as ``score``.
        """
        options = ScoreOptions(
            model=model,
            activation=activation,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            prompt_name=prompt_name,
            prompt=prompt,
        )
        return self._run(calls.score_documents(query, documents, options, self.options.split), timeout_s)

    def score_stream(
        self,
        pairs: Iterable[Pair],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[ScoreResult]:
        """``score`` for inputs of any size: one result a request, in order, while the iterable is read as needed.

        A wrong pair raises when its turn comes; what came before it has been scored.
        """
        options = ScoreOptions(
            model=model,
            activation=activation,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            prompt_name=prompt_name,
            prompt=prompt,
        )
        return self._stream(calls.score(pairs, options, self.options.split), timeout_s)

    def rerank(
        self,
        query: str,
        documents: Iterable[Given],
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        first_stage: FirstStage | None = None,
        partial_ok: bool = False,
        timeout_s: float | None = None,
    ) -> RerankResult:
        """The documents by descending score (equal scores by ascending index), at most ``top_k`` of them.

        Those whose score, as it is answered, is below ``min_score`` are left out, which may be all.

        With a ``first_stage`` a bi-encoder chooses which of them the cross-encoder reads, so that a thousand cost
        little more than those that it keeps; all go in one request then.

        With ``partial_ok`` the server scores what there is time and room for, and answers in time: the first documents,
        or the nearest of the first stage. The others come last, with ``scored`` False. Give it a ``timeout_s``.
        Documents are sent in one request then, as far as they fit into ``split.max_bytes``.

        Raises:
            InvalidInput: no documents, something that is not text, or an option out of range.
            WrongModelKind: the model has several labels, so that there is no one score to sort by.
        """
        options = ScoreOptions(
            model=model,
            activation=activation,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            prompt_name=prompt_name,
            prompt=prompt,
        )
        call = calls.rerank(
            query, documents, top_k, options, self.options.split, first_stage, min_score, partial_ok=partial_ok
        )
        return self._run(call, timeout_s)

    def classify(
        self,
        texts: Iterable[Given],
        candidate_labels: Iterable[Given],
        *,
        hypothesis_template: str | None = None,
        multi_label: bool = False,
        model: str = "",
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> ClassifyResult:
        """How well each label describes each text, by an NLI model: zero-shot classification.

        The result is a sequence of one `Classification` a text, labels best first; ``.scores`` is float32 [texts,
        labels] in the order given. ``ClassifyOptions`` tells what each option means.

        Raises:
            InvalidInput: no texts or labels, a template without a place for the label, or an option out of range.
            WrongModelKind: no loaded model knows entailment, or that of this name does not.
        """
        options = ClassifyOptions(
            model=model,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            hypothesis_template=hypothesis_template,
            multi_label=multi_label,
        )
        return self._run(calls.classify(texts, candidate_labels, options, self.options.split), timeout_s)

    def classify_stream(
        self,
        texts: Iterable[Given],
        candidate_labels: Iterable[Given],
        *,
        hypothesis_template: str | None = None,
        multi_label: bool = False,
        model: str = "",
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[ClassifyResult]:
        """``classify`` for inputs of any size, as ``score_stream``."""
        options = ClassifyOptions(
            model=model,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            hypothesis_template=hypothesis_template,
            multi_label=multi_label,
        )
        return self._stream(calls.classify(texts, candidate_labels, options, self.options.split), timeout_s)

    def embed(
        self,
        texts: Iterable[Given],
        *,
        model: str = "",
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        encoding: Encoding = "float32",
        timeout_s: float | None = None,
    ) -> EmbedResult:
        """Embeds each text; ``.embeddings`` is float32 [texts, dimensions], or what ``encoding`` says.

        ``EmbedOptions`` tells what each option means. Texts may be `TokenIds`, all of a call or none.

        Raises:
            InvalidInput: no texts, something that is not text, an unknown prompt, or an option out of range.
            WrongModelKind: no bi-encoder, or int8 of a package that has no ranges for it.
        """
        options = EmbedOptions(
            model=model,
            prompt_name=prompt_name,
            prompt=prompt,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            dimensions=dimensions,
            normalize=normalize,
            encoding=encoding,
        )
        return self._run(calls.embed(texts, options, self.options.split), timeout_s)

    def embed_stream(
        self,
        texts: Iterable[Given],
        *,
        model: str = "",
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        encoding: Encoding = "float32",
        timeout_s: float | None = None,
    ) -> Iterator[EmbedResult]:
        """``embed`` for inputs of any size, as ``score_stream``."""
        options = EmbedOptions(
            model=model,
            prompt_name=prompt_name,
            prompt=prompt,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            dimensions=dimensions,
            normalize=normalize,
            encoding=encoding,
        )
        return self._stream(calls.embed(texts, options, self.options.split), timeout_s)

    def embed_sparse(
        self,
        texts: Iterable[Given],
        *,
        model: str = "",
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        max_active_dims: int | None = None,
        input_type: InputType | None = None,
        timeout_s: float | None = None,
    ) -> SparseEmbedResult:
        """Embeds each text with a sparse encoder (SPLADE): the tokens that have weight, and their weights.

        ``max_active_dims`` keeps this many of the largest weights of each text; None means what the checkpoint does,
        which may be all. ``input_type`` says what the texts are to a model that looks queries up in a table and reads
        documents; None means what the checkpoint does. Texts may be `TokenIds`, all of a call or none.

        Raises:
            InvalidInput: as ``embed``.
            WrongModelKind: no sparse encoder.
        """
        options = SparseOptions(
            model=model,
            prompt_name=prompt_name,
            prompt=prompt,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            max_active_dims=max_active_dims,
            input_type=input_type,
        )
        return self._run(calls.embed_sparse(texts, options, self.options.split), timeout_s)

    def embed_sparse_stream(
        self,
        texts: Iterable[Given],
        *,
        model: str = "",
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: Truncation | None = None,
        truncation_direction: TruncationDirection | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        max_active_dims: int | None = None,
        input_type: InputType | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[SparseEmbedResult]:
        """``embed_sparse`` for inputs of any size, as ``score_stream``."""
        options = SparseOptions(
            model=model,
            prompt_name=prompt_name,
            prompt=prompt,
            truncation=truncation,
            truncation_direction=truncation_direction,
            max_length=max_length,
            priority=priority,
            max_active_dims=max_active_dims,
            input_type=input_type,
        )
        return self._stream(calls.embed_sparse(texts, options, self.options.split), timeout_s)

    def models(self, *, timeout_s: float | None = None) -> list[Model]:
        """Every loaded model, by name."""
        answer = self._ask(self._model.ListModels, model_pb2.ListModelsRequest(), timeout_s)
        return [codec.model(found) for found in answer.models]

    def model(self, name: str = "", *, timeout_s: float | None = None) -> ModelDetails:
        """One loaded model with its manifest; the name may be empty where exactly one is loaded.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return codec.model_details(self._ask(self._model.GetModel, model_pb2.GetModelRequest(model=name), timeout_s))

    def cross_encoder(self, model: str = "") -> CrossEncoder:
        """The model behind the interface of sentence-transformers' CrossEncoder: ``predict`` and ``rank``."""
        return CrossEncoder(self, model)

    def sentence_encoder(self, model: str = "") -> SentenceEncoder:
        """The model behind the interface of sentence-transformers' SentenceTransformer: ``encode``."""
        return SentenceEncoder(self, model)

    def sparse_encoder(self, model: str = "") -> SparseEncoder:
        """The model behind the interface of sentence-transformers' SparseEncoder: ``encode``."""
        return SparseEncoder(self, model)
