"""The work on a server."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pairwire.client import Client, ClientOptions, EmbedResult, RerankResult, ScoreResult, SparseEmbedResult, TlsFiles
from pairwire.client.first_stage import FirstStage
from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.client.zero_shot import ClassifyOptions, ClassifyResult

from .arguments import API_KEY_VARIABLE
from .exits import BadInput
from .in_order import in_order
from .records import Query

RANKINGS_IN_FLIGHT = 4


def open_client(args: argparse.Namespace) -> Client:
    """A client for the arguments of `arguments.add_connection`.

    Raises:
        BadInput: an address or TLS files that cannot be used.
    """
    try:
        tls = None
        if args.tls or args.ca_file or args.cert_file or args.key_file:
            tls = TlsFiles(root_certificates=args.ca_file, client_certificate=args.cert_file, client_key=args.key_file)
        options = ClientOptions(timeout_s=args.timeout, tls=tls, user_agent="pairwire-cli", api_key=_api_key(args))
        addresses = args.address.split(",")
        return Client(addresses[0] if len(addresses) == 1 else addresses, options=options)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


def _api_key(args: argparse.Namespace) -> str:
    """From a file or the environment: everybody on the machine can read a command line."""
    if args.api_key_file is None:
        return os.environ.get(API_KEY_VARIABLE, "").strip()
    try:
        key = Path(args.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"--api-key-file {args.api_key_file}: cannot be read ({reason})") from None
    if not key:
        raise BadInput(f"--api-key-file {args.api_key_file}: empty; it has the key and nothing else")
    return key


class RemoteBackend:
    """A `Backend` on a server."""

    def __init__(self, client: Client, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._threads = threads

    @classmethod
    @contextmanager
    def open(cls, client: Client) -> Iterator[RemoteBackend]:
        """The backend; closes the client in the end."""
        threads = ThreadPoolExecutor(RANKINGS_IN_FLIGHT)
        try:
            yield cls(client, threads)
        finally:
            client.close()  # first: it ends the calls that the threads wait for
            threads.shutdown(cancel_futures=True)

    def score(self, pairs: Iterable[tuple[str, str]], options: ScoreOptions) -> Iterator[ScoreResult]:
        """Scores of runs of pairs."""
        return self._client.score_stream(pairs, **asdict(options))

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

        def rank(query: Query) -> RerankResult:
            return self._client.rerank(
                query.query,
                query.documents,
                top_k=top_k,
                min_score=min_score,
                first_stage=first_stage,
                partial_ok=partial_ok,
                **asdict(options),
            )

        return in_order(lambda query: self._threads.submit(rank, query), queries, RANKINGS_IN_FLIGHT)

    def classify(
        self, texts: Iterable[str], labels: Sequence[str], options: ClassifyOptions
    ) -> Iterator[ClassifyResult]:
        """Scores of labels for runs of texts."""
        named = {name: value for name, value in asdict(options).items() if name not in ("prompt", "prompt_name")}
        return self._client.classify_stream(texts, labels, **named)

    def embed(self, texts: Iterable[str], options: EmbedOptions) -> Iterator[EmbedResult]:
        """Vectors of runs of texts."""
        return self._client.embed_stream(texts, **asdict(options))

    def embed_sparse(self, texts: Iterable[str], options: SparseOptions) -> Iterator[SparseEmbedResult]:
        """Sparse vectors of runs of texts."""
        return self._client.embed_sparse_stream(texts, **asdict(options))
