"""Checked inputs -> requests: cuts what is large into parts that keep to the split limits, lazily and in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from pairwire.v1 import embedding_pb2, scoring_pb2

from .errors import InvalidInput
from .first_stage import FirstStage
from .given import one_text, several
from .inputs import (
    EmbedOptions,
    Given,
    Pair,
    ScoreOptions,
    SparseOptions,
    check_count,
    check_number,
    text_bytes,
    two_texts,
    utf8_bytes,
)
from .options import SplitLimits
from .token_ids import Text, TokenIds
from .zero_shot import ClassifyOptions

Request = TypeVar("Request")
Item = TypeVar("Item")
TextRequest = TypeVar("TextRequest", embedding_pb2.EmbedRequest, embedding_pb2.EmbedSparseRequest)

# Upper bounds of what protobuf adds to the texts: a tag and a length of at most five bytes for each text and message.
_TEXT_OVERHEAD = 6
_PAIR_OVERHEAD = 18

_ACTIVATIONS = {
    None: scoring_pb2.ACTIVATION_UNSPECIFIED,
    "identity": scoring_pb2.ACTIVATION_IDENTITY,
    "sigmoid": scoring_pb2.ACTIVATION_SIGMOID,
    "softmax": scoring_pb2.ACTIVATION_SOFTMAX,
}
_TRUNCATIONS = {
    None: scoring_pb2.TRUNCATION_UNSPECIFIED,
    "longest_first": scoring_pb2.TRUNCATION_LONGEST_FIRST,
    "only_first": scoring_pb2.TRUNCATION_ONLY_FIRST,
    "only_second": scoring_pb2.TRUNCATION_ONLY_SECOND,
    "error": scoring_pb2.TRUNCATION_ERROR,
}
_DIRECTIONS = {
    None: scoring_pb2.TRUNCATION_DIRECTION_UNSPECIFIED,
    "right": scoring_pb2.TRUNCATION_DIRECTION_RIGHT,
    "left": scoring_pb2.TRUNCATION_DIRECTION_LEFT,
}
_PRIORITIES = {
    None: scoring_pb2.PRIORITY_UNSPECIFIED,
    "low": scoring_pb2.PRIORITY_LOW,
    "normal": scoring_pb2.PRIORITY_NORMAL,
    "high": scoring_pb2.PRIORITY_HIGH,
}
_INPUT_TYPES = {
    None: embedding_pb2.INPUT_TYPE_UNSPECIFIED,
    "query": embedding_pb2.INPUT_TYPE_QUERY,
    "document": embedding_pb2.INPUT_TYPE_DOCUMENT,
}
_ENCODINGS = {
    "float32": embedding_pb2.ENCODING_FLOAT32,
    "float16": embedding_pb2.ENCODING_FLOAT16,
    "int8": embedding_pb2.ENCODING_INT8,
    "binary": embedding_pb2.ENCODING_BINARY,
}


@dataclass(frozen=True, slots=True)
class Part(Generic[Request]):
    """One request of a call."""

    message: Request
    start: int
    """Index of its first input in what the caller gave."""
    count: int
    """Its inputs."""


def score_parts(
    pairs: Iterable[Pair], options: ScoreOptions, limits: SplitLimits
) -> Iterator[Part[scoring_pb2.ScoreRequest]]:
    """Requests for pairs. The iterable is read as far as the part being built.

    Raises:
        InvalidInput: no pairs, something that is not two texts, or a pair larger than a request may be.
    """
    pairs = several("pairs", pairs)
    base = _score_request(options)
    for start, chunk in _chunks(_checked_pairs(pairs), base.ByteSize() + _PAIR_OVERHEAD, limits, "pairs"):
        message = _score_request(options)
        if isinstance(chunk[0], scoring_pb2.TokenIdPair):
            message.token_id_pairs.pairs.extend(cast("list[scoring_pb2.TokenIdPair]", chunk))
        else:
            message.text_pairs.pairs.extend(cast("list[scoring_pb2.TextPair]", chunk))
        yield Part(message, start, len(chunk))


def score_documents_parts(
    query: str, documents: Iterable[Given], options: ScoreOptions, limits: SplitLimits
) -> Iterator[Part[scoring_pb2.ScoreRequest]]:
    """Requests for one query with documents.

    Raises:
        InvalidInput: as ``score_parts``.
    """
    query, documents = one_text("query", query), several("documents", documents)
    base = _score_request(options).ByteSize() + utf8_bytes("query", query) + 2 * _TEXT_OVERHEAD
    for start, chunk in _chunks(_checked_texts("documents", documents), base, limits, "documents"):
        message = _score_request(options)
        message.query_documents.query = query
        message.query_documents.documents.extend(chunk)
        yield Part(message, start, len(chunk))


def rerank_parts(
    query: str,
    documents: Iterable[Given],
    top_k: int | None,
    options: ScoreOptions,
    limits: SplitLimits,
    first_stage: FirstStage | None = None,
    min_score: float | None = None,
    *,
    partial_ok: bool = False,
) -> Iterator[Part[scoring_pb2.RerankRequest]]:
    """Requests that rank documents; the best ``top_k`` of all are among the best ``top_k`` of each part.

    With a first stage it is one request: the nearest of all are not the nearest of each part. Where a partial answer
    will do it is one request as well, unless it has too many bytes: its time is for all documents together. The
    documents are not asked back: the caller has them.

    Raises:
        InvalidInput: as ``score_parts``, a ``top_k`` that is no count, a ``min_score`` that is no number, or too much
            for one request with a first stage.
    """
    if first_stage is not None or partial_ok:
        limits = replace(limits, max_items=sys.maxsize)
    query, documents = one_text("query", query), several("documents", documents)
    check_count("top_k", top_k)
    check_number("min_score", min_score)
    utf8_bytes("query", query)
    base = scoring_pb2.RerankRequest(
        model=options.model,
        query=query,
        top_k=None if top_k is None else int(top_k),
        min_score=None if min_score is None else float(min_score),
        activation=_ACTIVATIONS[options.activation],
        truncation=_TRUNCATIONS[options.truncation],
        truncation_direction=_DIRECTIONS[options.truncation_direction],
        max_length=int(options.max_length or 0),
        priority=_PRIORITIES[options.priority],
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        first_stage=None if first_stage is None else first_stage.message(),
        partial_ok=bool(partial_ok),
    )
    for start, chunk in _chunks(_checked_texts("documents", documents), base.ByteSize(), limits, "documents"):
        if first_stage is not None and start:
            raise InvalidInput.at(
                f"documents[{start}]",
                f"with a first stage all documents go in one request, and those before this fill its "
                f"{limits.max_bytes} bytes; send fewer, or raise ClientOptions.split.max_bytes (a server takes its "
                "--max-message-bytes, 32 MiB by default)",
            )
        message = scoring_pb2.RerankRequest()
        message.CopyFrom(base)
        message.documents.extend(chunk)
        yield Part(message, start, len(chunk))


def classify_parts(
    texts: Iterable[Given], candidate_labels: Iterable[Given], options: ClassifyOptions, limits: SplitLimits
) -> Iterator[Part[scoring_pb2.ClassifyRequest]]:
    """Requests for texts, each with all candidate labels; a text counts once for each label.

    Raises:
        InvalidInput: as ``score_parts``, or no label.
    """
    texts, given = several("texts", texts), several("candidate_labels", candidate_labels)
    labels = [label for label, _ in _checked_texts("candidate_labels", given)]
    if not labels:
        raise InvalidInput.at("candidate_labels", "at least one is needed")
    base = scoring_pb2.ClassifyRequest(
        model=options.model,
        candidate_labels=labels,
        hypothesis_template=options.hypothesis_template,
        multi_label=bool(options.multi_label),
        truncation=_TRUNCATIONS[options.truncation],
        truncation_direction=_DIRECTIONS[options.truncation_direction],
        max_length=int(options.max_length or 0),
        priority=_PRIORITIES[options.priority],
    )
    limits = replace(limits, max_items=max(1, limits.max_items // len(labels)))
    for start, chunk in _chunks(_checked_texts("texts", texts), base.ByteSize(), limits, "texts"):
        message = scoring_pb2.ClassifyRequest()
        message.CopyFrom(base)
        message.texts.extend(chunk)
        yield Part(message, start, len(chunk))


def embed_parts(
    texts: Iterable[Given], options: EmbedOptions, limits: SplitLimits
) -> Iterator[Part[embedding_pb2.EmbedRequest]]:
    """Requests for texts. The iterable is read as far as the part being built.

    Raises:
        InvalidInput: as ``score_parts``.
    """
    texts = several("texts", texts)
    base = embedding_pb2.EmbedRequest(
        model=options.model,
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        dimensions=int(options.dimensions or 0),
        normalize=options.normalize,
        encoding=_ENCODINGS[options.encoding],
        truncation=_TRUNCATIONS[options.truncation],
        truncation_direction=_DIRECTIONS[options.truncation_direction],
        max_length=int(options.max_length or 0),
        priority=_PRIORITIES[options.priority],
    )
    yield from _text_parts(base, texts, limits)


def sparse_parts(
    texts: Iterable[Given], options: SparseOptions, limits: SplitLimits
) -> Iterator[Part[embedding_pb2.EmbedSparseRequest]]:
    """Requests for texts of a sparse encoder, as ``embed_parts``.

    Raises:
        InvalidInput: as ``score_parts``.
    """
    texts = several("texts", texts)
    base = embedding_pb2.EmbedSparseRequest(
        model=options.model,
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        truncation=_TRUNCATIONS[options.truncation],
        truncation_direction=_DIRECTIONS[options.truncation_direction],
        max_length=int(options.max_length or 0),
        priority=_PRIORITIES[options.priority],
        max_active_dims=int(options.max_active_dims or 0),
        input_type=_INPUT_TYPES[options.input_type],
    )
    yield from _text_parts(base, texts, limits)


def _text_parts(base: TextRequest, texts: Iterable[Given], limits: SplitLimits) -> Iterator[Part[TextRequest]]:
    """Requests like ``base``, each with some of the texts."""
    for start, chunk in _chunks(_checked_single(texts), base.ByteSize(), limits, "texts"):
        message = type(base)()
        message.CopyFrom(base)
        _add_texts(message, chunk)
        yield Part(message, start, len(chunk))


def _score_request(options: ScoreOptions) -> scoring_pb2.ScoreRequest:
    return scoring_pb2.ScoreRequest(
        model=options.model,
        activation=_ACTIVATIONS[options.activation],
        truncation=_TRUNCATIONS[options.truncation],
        truncation_direction=_DIRECTIONS[options.truncation_direction],
        max_length=int(options.max_length or 0),
        priority=_PRIORITIES[options.priority],
        prompt_name=options.prompt_name,
        prompt=options.prompt,
    )


def _checked_pairs(pairs: Iterable[Pair]) -> Iterator[tuple[scoring_pb2.TextPair | scoring_pb2.TokenIdPair, int]]:
    tokenised: bool | None = None
    for index, pair in enumerate(pairs):
        first, second, size = two_texts(f"pairs[{index}]", pair)
        tokenised = _check_kind(f"pairs[{index}]", first, tokenised)
        if isinstance(first, TokenIds) and isinstance(second, TokenIds):
            yield scoring_pb2.TokenIdPair(first=_ids(first), second=_ids(second)), size + _PAIR_OVERHEAD
        else:
            yield scoring_pb2.TextPair(first=str(first), second=str(second)), size + _PAIR_OVERHEAD


def _checked_texts(field: str, texts: Iterable[Any]) -> Iterator[tuple[str, int]]:
    for index, given in enumerate(texts):
        text = one_text(f"{field}[{index}]", given)
        if isinstance(text, TokenIds):
            raise InvalidInput.at(f"{field}[{index}]", "expected text (str); token ids can be scored as pairs: `score`")
        yield text, utf8_bytes(f"{field}[{index}]", text) + _TEXT_OVERHEAD


def _checked_single(texts: Iterable[Given]) -> Iterator[tuple[Text, int]]:
    tokenised: bool | None = None
    for index, given in enumerate(texts):
        text = one_text(f"texts[{index}]", given)
        size = text_bytes(f"texts[{index}]", text)
        tokenised = _check_kind(f"texts[{index}]", text, tokenised)
        yield text, size + _TEXT_OVERHEAD


def _check_kind(field: str, text: Text, tokenised: bool | None) -> bool:
    """Whether this is token ids, as what came before it was; a request carries one or the other."""
    found = isinstance(text, TokenIds)
    if tokenised is not None and found is not tokenised:
        given, before = ("token ids", "text") if found else ("text", "token ids")
        raise InvalidInput.at(field, f"{given} after {before}; make a call of each kind")
    return found


def _ids(text: TokenIds) -> scoring_pb2.TokenIds:
    return scoring_pb2.TokenIds(ids=text.ids)


def _add_texts(message: embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest, texts: list[Text]) -> None:
    if isinstance(texts[0], TokenIds):
        message.token_ids.extend(_ids(text) for text in cast("list[TokenIds]", texts))
    else:
        message.texts.extend(cast("list[str]", texts))


def _chunks(
    items: Iterable[tuple[Item, int]], base_bytes: int, limits: SplitLimits, field: str
) -> Iterator[tuple[int, list[Item]]]:
    """Start and items of each part, as full as the limits allow."""
    start, chunk, room = 0, list[Item](), limits.max_bytes - base_bytes
    for index, (item, size) in enumerate(items):
        if size > limits.max_bytes - base_bytes:
            raise InvalidInput.at(
                f"{field}[{index}]",
                f"{base_bytes + size} bytes with the rest of its request are more than the {limits.max_bytes} "
                "of one request; shorten it (a model reads a few thousand characters), or raise "
                "ClientOptions.split.max_bytes and the server's message limit",
            )
        if chunk and (size > room or len(chunk) == limits.max_items):
            yield start, chunk
            start, chunk, room = index, [], limits.max_bytes - base_bytes
        chunk.append(item)
        room -= size
    if not chunk:
        raise InvalidInput.at(field, "at least one is needed")
    yield start, chunk
