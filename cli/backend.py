"""Where the work is done: on a server, or in this process. Same methods, same results."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pairwire.client.first_stage import FirstStage
from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.client.results import EmbedResult, RerankResult, ScoreResult, SparseEmbedResult
from pairwire.client.zero_shot import ClassifyOptions, ClassifyResult

from .exits import BadInput
from .records import Query


class Backend(Protocol):
    """Answers in input order while it reads its input as needed, with a bounded number of requests under way."""

    def score(self, pairs: Iterable[tuple[str, str]], options: ScoreOptions) -> Iterator[ScoreResult]:
        """Scores of runs of pairs."""
        ...

    def rerank(
        self,
        queries: Iterable[Query],
        top_k: int | None,
        options: ScoreOptions,
        first_stage: FirstStage | None = None,
        min_score: float | None = None,
        *,
        partial_ok: bool = False,
    ) -> Iterator[RerankResult]:
        """One ranking a query."""
        ...

    def classify(
        self, texts: Iterable[str], labels: Sequence[str], options: ClassifyOptions
    ) -> Iterator[ClassifyResult]:
        """Scores of labels for runs of texts."""
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
