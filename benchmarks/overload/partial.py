"""Reranks with ``partial_ok`` under overload, beside plain ones: how many are in time, and what the rankings are worth.

SciFact's claims with BM25's best abstracts, in its order or shuffled; who is refused is left with that order. Each load
is run both ways; ``ndcg_at_10`` is the mean over all requests, in whatever way they ended.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from pairwire.v1 import scoring_pb2

from .. import load_client
from ..datasets import scifact_candidates, scifact_texts
from ..judged import scifact_judgements
from ..serving import Server
from .sending import Row, latencies, percentiles, plan, run, told

COLUMNS = ("load", "partial_ok", "calls", "in_time", "codes", "scored", "ndcg_at_10", "p50_ms", "p99_ms")


def partial(args: argparse.Namespace, server: Server) -> list[Row]:
    """Two rows for each load; the first two rows are BM25's order, and all documents scored at leisure."""
    queries = list(scifact_candidates(args.data, args.depth).items())[: args.queries or None]
    if args.shuffled:
        rng = random.Random(args.seed)
        queries = [(query, rng.sample(documents, len(documents))) for query, documents in queries]
    worth = _Worth(args.data, queries)
    patient = plan(args, server, _requests(args, queries, partial_ok=False), shape="rerank", concurrency=8)
    run([patient])  # until the costs of batches are known well
    (record,) = run([patient])
    capacity = record.answered / args.duration  # calls a second
    print(f"capacity: {capacity:.1f} requests/s of {args.depth} documents, deadline {args.deadline:g} s")
    rows: list[Row] = [
        {"load": "-", "scored": 0.0, "ndcg_at_10": worth.of_nothing},
        {"load": "at leisure", "scored": 1.0, "ndcg_at_10": worth.of([record])},
    ]
    for load in args.load:
        for partial_ok in (False, True):
            requests = _requests(args, queries, partial_ok=partial_ok)
            rate = load * capacity / args.processes
            plans = [
                plan(args, server, requests, shape="rerank", rate_hz=rate, seed=args.seed + at)
                for at in range(args.processes)
            ]
            rows.append({"load": load, "partial_ok": partial_ok, **_summary(run(plans), worth, args.depth)})
    return rows


class _Worth:
    """nDCG@10 of rankings, by request."""

    def __init__(self, data: Path, queries: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._queries = queries
        self._judged: dict[str, list[Qrel]] = {}
        for each in scifact_judgements(data):
            self._judged.setdefault(each.query_id, []).append(each)
        self.of_nothing = self._mean([(at, range(len(documents))) for at, (_, documents) in enumerate(queries)])

    def of(self, records: Sequence[load_client.Record]) -> float:
        """The mean over all requests; a refused one leaves the order in which its documents were sent."""
        rankings = []
        for record in records:
            for number, code, ranking in zip(record.numbers, record.codes, record.rankings, strict=True):
                rankings.append((number, ranking if code == "OK" else range(len(self._queries[number][1]))))
        return self._mean(rankings)

    def _mean(self, rankings: Sequence[tuple[int, Sequence[int]]]) -> float:
        qrels, run = [], []
        for at, (number, ranking) in enumerate(rankings):
            query, documents = self._queries[number]
            qrels += [Qrel(str(at), each.doc_id, each.relevance) for each in self._judged.get(query, ())]
            run += [ScoredDoc(str(at), documents[index], -float(place)) for place, index in enumerate(ranking)]
        return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def _summary(records: Sequence[load_client.Record], worth: _Worth, depth: int) -> Row:
    codes = Counter(code for record in records for code in record.codes)
    scored = [depth - left_out for record in records for left_out in record.unscored]
    return {
        "calls": codes.total(),
        "in_time": codes["OK"] / max(1, codes.total()),
        "codes": told(codes),
        "scored": sum(scored) / depth / max(1, codes.total()),
        "ndcg_at_10": worth.of(records),
        **percentiles("", latencies(records, failed=False)),
    }


def _requests(
    args: argparse.Namespace, queries: Sequence[tuple[str, Sequence[str]]], *, partial_ok: bool
) -> list[bytes]:
    texts, corpus = scifact_texts(args.data)
    return [
        scoring_pb2.RerankRequest(
            query=texts[query],
            documents=[corpus[each] for each in documents],
            max_length=args.max_length,
            partial_ok=partial_ok,
        ).SerializeToString()
        for query, documents in queries
    ]
