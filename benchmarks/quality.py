"""What a package's variants are worth, and what quantising cost.

``python -m benchmarks.quality --package DIR --data DIR``

    scifact   nDCG@10 and MRR@10 of BM25's best abstracts (test claims), reordered by score; BM25's own order beside it
    stsb      Spearman correlation with people's scores, test part
    qnli      accuracy of score > 0.5 on the development part

Metrics of ranking come from ir_measures. The engine scores in process, each variant in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import RR, Qrel, ScoredDoc, nDCG
from scipy.stats import spearmanr

from pairwire.server.engine import Engine, EngineConfig, ScoreOptions
from pairwire.server.package import read_package

from .datasets import Pair, load_pairs, scifact_candidates, scifact_texts
from .report import print_machine, print_table, write_json

COLUMNS = ("dataset", "system", "pairs", "ndcg_at_10", "mrr_at_10", "spearman", "accuracy")
PAIRS_A_CALL = 1024


def main() -> None:
    """Measures every variant of a cross-encoder package."""
    args = _arguments()
    print_machine()
    variants = [variant.name for variant in read_package(args.package).manifest.variants]
    rows: list[dict[str, object]] = []
    if "scifact" in args.dataset:
        rows.append(_ranking("BM25", args.data, args.depth, args.queries, scores=None))
    for variant in args.variant or variants:
        rows += asyncio.run(_variant(args, variant))
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


async def _variant(args: argparse.Namespace, variant: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    options = ScoreOptions(max_length=args.max_length)
    async with await Engine.open(args.package, config=EngineConfig(variant=variant)) as engine:
        if "scifact" in args.dataset:
            pairs = [pair for _, _, pair in _candidates(args.data, args.depth, args.queries)]
            rows.append(
                _ranking(variant, args.data, args.depth, args.queries, scores=await _scores(engine, pairs, options))
            )
        if "stsb" in args.dataset:
            pairs, people = _stsb(args.data)
            correlation = spearmanr(await _scores(engine, pairs, options), people).statistic
            rows.append({"dataset": "stsb", "system": variant, "pairs": len(pairs), "spearman": float(correlation)})
        if "qnli" in args.dataset:
            pairs, entailed = _qnli(args.data)
            right = (await _scores(engine, pairs, options) > 0.5) == entailed
            rows.append({"dataset": "qnli", "system": variant, "pairs": len(pairs), "accuracy": float(right.mean())})
    return rows


async def _scores(engine: Engine, pairs: Sequence[Pair], options: ScoreOptions) -> npt.NDArray[np.float32]:
    parts = [
        (await engine.score(pairs[at : at + PAIRS_A_CALL], options=options)).scores[:, 0]
        for at in range(0, len(pairs), PAIRS_A_CALL)
    ]
    return np.concatenate(parts)


def _candidates(data: Path, depth: int, limit: int) -> list[tuple[str, str, Pair]]:
    """(query id, document id, texts), best first within a query."""
    queries, corpus = scifact_texts(data)
    chosen = list(scifact_candidates(data, depth).items())[: limit or None]
    return [(query, document, (queries[query], corpus[document])) for query, found in chosen for document in found]


def _ranking(
    system: str, data: Path, depth: int, limit: int, *, scores: npt.NDArray[np.float32] | None
) -> dict[str, object]:
    """``scores`` [candidates]; None for BM25's own order."""
    candidates = _candidates(data, depth, limit)
    values = [-float(at) for at in range(len(candidates))] if scores is None else scores.tolist()
    run = [ScoredDoc(query, document, value) for (query, document, _), value in zip(candidates, values, strict=True)]
    asked = {query for query, _, _ in candidates}
    with (data / "scifact" / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        judged = [
            Qrel(row["query-id"], row["corpus-id"], int(row["score"])) for row in csv.DictReader(file, delimiter="\t")
        ]
    found = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10], [qrel for qrel in judged if qrel.query_id in asked], run)
    return {
        "dataset": f"scifact, BM25 top {depth}",
        "system": system,
        "pairs": len(candidates),
        "ndcg_at_10": found[nDCG @ 10],
        "mrr_at_10": found[RR @ 10],
    }


def _stsb(data: Path) -> tuple[list[Pair], list[float]]:
    with (data / "stsb-en" / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
        return load_pairs("stsb", data), [float(row[2]) for row in csv.reader(file)]


def _qnli(data: Path) -> tuple[list[Pair], npt.NDArray[np.bool_]]:
    with (data / "qnli" / "dev.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return load_pairs("qnli", data), np.array([row["label"] == "entailment" for row in rows])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="a package of a one-label cross-encoder")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--dataset", nargs="+", default=["scifact", "stsb"], choices=["scifact", "stsb", "qnli"])
    parser.add_argument("--variant", nargs="+", help="only these variants (default: all of the package)")
    parser.add_argument("--depth", type=int, default=100, help="candidates a query (default 100)")
    parser.add_argument("--max-length", type=int, help="tokens a pair is cut to (default: the model's own limit)")
    parser.add_argument("--queries", type=int, default=0, help="only the first so many queries (default all)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
