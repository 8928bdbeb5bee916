"""Search in two stages: a bi-encoder and a vector index find candidates, a cross-encoder puts them in order.

    python -m examples.retrieve_and_rerank --depth 20                       built-in passages and questions
    python -m examples.retrieve_and_rerank --data DIR --max-length 256      SciFact: 5,183 abstracts, 30 of 300 claims

Every document is embedded once. A query then costs one embedding, one look-up in the index and --depth pairs.
Prints the time of each stage, nDCG@10 of both orders with which of them is better, and the best three of one query.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from ir_measures import Qrel, ScoredDoc, calc_aggregate, nDCG
from usearch.index import Index

from pairwire.client import Client

from . import _serving
from ._texts import Collection, collection

Run = list[ScoredDoc]
"""What a stage answers: query, document and score, best first within a query."""


def main(argv: Sequence[str] | None = None) -> None:
    """Searches, and says what each stage took and was worth."""
    parser = _serving.arguments("retrieve_and_rerank", __doc__)
    parser.add_argument("--queries", type=int, default=30, help="only the first N (default 30)")
    parser.add_argument("--depth", type=int, default=100, help="candidates that are reranked (default 100)")
    parser.add_argument("--max-length", type=int, help="tokens a pair is cut to (default: the model's limit)")
    args = parser.parse_args(argv)
    texts = collection(args.data).first(args.queries)
    print(f"{'stage':13}{'seconds':>8}")
    with _serving.connected(args) as client:
        index = build_index(client, texts)
        retrieved = retrieve(client, index, texts, args.depth)
        reranked = rerank(client, texts, retrieved, args.max_length)
    report(texts, {"by vectors": retrieved, "reranked": reranked})


def build_index(client: Client, texts: Collection) -> Index:
    """Embeds every document, and puts the vectors into an index under their positions."""
    embedded = client.embed(texts.documents.values(), priority="low", timeout_s=600)
    seconds = embedded.timing.elapsed_s
    stage("embed corpus", seconds, f"{len(embedded)} documents, {len(embedded) / seconds:.0f} a second")
    began = time.perf_counter()
    index = Index(ndim=embedded.embeddings.shape[1], metric="cos", dtype="f32")
    index.add(np.arange(len(embedded)), embedded.embeddings)
    stage("build index", time.perf_counter() - began, f"HNSW, cosine, {index.ndim} dimensions")
    return index


def retrieve(client: Client, index: Index, texts: Collection, depth: int) -> Run:
    """The documents whose vectors are nearest to the query's, with the cosine as score."""
    began = time.perf_counter()
    keys = list(texts.documents)
    vectors = client.embed(texts.queries.values()).embeddings
    run: Run = []
    for query, vector in zip(texts.queries, vectors, strict=True):
        found = index.search(vector, depth)
        run += [
            ScoredDoc(query, keys[at], 1.0 - float(far)) for at, far in zip(found.keys, found.distances, strict=True)
        ]
    stage("search", time.perf_counter() - began, f"{len(vectors)} queries, {len(run)} candidates")
    return run


def rerank(client: Client, texts: Collection, candidates: Run, max_length: int | None) -> Run:
    """The same documents with the cross-encoder's scores, in their order."""
    began = time.perf_counter()
    run: Run = []
    for query, text in texts.queries.items():
        found = [candidate.doc_id for candidate in candidates if candidate.query_id == query]
        ranking = client.rerank(text, [texts.documents[key] for key in found], max_length=max_length)
        run += [ScoredDoc(query, found[ranked.index], ranked.score) for ranked in ranking]
    seconds = time.perf_counter() - began
    stage("rerank", seconds, f"{len(run)} pairs, {len(run) / seconds:.0f} a second")
    return run


def report(texts: Collection, runs: dict[str, Run]) -> None:
    """nDCG@10 of each order, which is the best here, and how each answers the first query."""
    judged = [Qrel(query, key, grade) for query, found in texts.relevant.items() for key, grade in found.items()]
    worth = {name: calc_aggregate([nDCG @ 10], judged, run)[nDCG @ 10] for name, run in runs.items()}
    print(f"\n{'order':13}{'nDCG@10':>8}")
    for name, value in worth.items():
        print(f"{name:13}{value:8.4f}")
    best = max(worth, key=lambda name: worth[name])
    print(f"Better on these {len(texts.queries)} queries: {best}, by {max(worth.values()) - min(worth.values()):.4f}.")
    query, text = next(iter(texts.queries.items()))
    print(f"\n? {text}")
    for name, run in runs.items():
        for found in [found for found in run if found.query_id == query][:3]:
            mark = "*" if found.doc_id in texts.relevant[query] else " "
            print(f"{name:13}{found.score:8.3f} {mark} {texts.documents[found.doc_id][:80]}")


def stage(name: str, seconds: float, what: str) -> None:
    """A line of the table of times."""
    print(f"{name:13}{seconds:8.2f}  {what}", flush=True)


if __name__ == "__main__":
    main()
