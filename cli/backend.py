"""Where the work is done: on a server, or in this process. Same methods, same results."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from pairwire.client.first_stage import FirstStage
from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.client.results import EmbedResult, RerankResult, ScoreResult, SparseEmbedResult

from .exits import BadInput
from .records import Query

T = TypeVar("T")
R = TypeVar("R")


class Backend(Protocol):
    """Answers in input order while it reads its input as needed, with a bounded number of requests under way."""

    def score(self, pairs: Iterable[tuple[str, str]], options: ScoreOptions) -> Iterator[ScoreResult]:
        """Scores of runs of pairs."""
        ...

    def rerank(
        self, queries: Iterable[Query], top_k: int | None, options: ScoreOptions, first_stage: FirstStage | None = None
    ) -> Iterator[RerankResult]:
        """One ranking a query."""
        ...

    def embed(self, texts: Iterable[str], options: EmbedOptions) -> Iterator[EmbedResult]:
        """Vectors of runs of texts."""
        ...

    def embed_sparse(self, texts: Iterable[str], options: SparseOptions) -> Iterator[SparseEmbedResult]:
        """Sparse vectors of runs of texts."""
        ...


def open_backend(args: argparse.Namespace) -> AbstractContextManager[Backend]:
    """What the arguments of `arguments.add_connection` ask for.

    Raises:
        BadInput: TLS files that do not go together or cannot be read.
    """
    if getattr(args, "local", None) is not None:
        if args.tls or args.ca_file or args.cert_file or args.key_file:
            raise BadInput("--local uses no connection, so that TLS options mean nothing; leave one of them out")
        from .local import LocalBackend

        retriever = getattr(args, "first_stage", None)
        return LocalBackend.open(args.local, *([] if retriever is None else [Path(retriever)]))
    from .remote import RemoteBackend, open_client

    return RemoteBackend.open(open_client(args))


def in_order(submit: Callable[[T], Future[R]], items: Iterable[T], in_flight: int) -> Iterator[R]:
    """Results in input order, at most ``in_flight`` at once; what waits when reading stops is cancelled."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == in_flight:
                yield waiting.popleft().result()
            waiting.append(submit(item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
