"""What a package's variants are worth compared with the original checkpoint, and what quantising cost.

``python -m benchmarks.quality --package DIR --data DIR [--checkpoint CHECKPOINT]``

Metrics are in `benchmarks/judged.py`. With ``--checkpoint``, sentence-transformers scores the same pairs with the
original in float32 (a PEFT adapter is merged into its base before), and every variant is compared with that; without
it, with the package's fp32 variant where it has one. PyTorch takes some 80 ms of a core for an abstract: ``--queries``
and ``--limit`` keep that short.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pairwire.server.package import read_package
from pairwire.v1 import manifest_pb2

from .agreement import agreement
from .checkpoints import merged_checkpoint
from .judged import NAMES, Judged, Scores, bm25_order, qnli, scifact, stsb
from .report import print_machine, print_table, write_json
from .scorers import VariantScorer, bi_encoder, original

ORIGINAL = "original"
COLUMNS = (
    "dataset",
    "system",
    "pairs",
    "ndcg_at_10",
    "ndcg_relative",
    "mrr_at_10",
    "spearman",
    "accuracy",
    "difference",
    "max_abs_diff",
    "mean_abs_diff",
    "rank_correlation",
)
"""``difference`` is that of the data set's first metric from the reference's, ``ndcg_relative`` the same as a share."""


def main() -> None:
    """Measures the original, where it is given, and every variant."""
    args = _arguments()
    print_machine()
    manifest = read_package(args.package).manifest
    embeds = bi_encoder(manifest)
    sets = _data_sets(args, embeds)
    scores: dict[str, list[Scores]] = {}
    if args.checkpoint:
        scores[ORIGINAL] = _score_original(args, sets, embeds)
    for variant in args.variant or [variant.name for variant in manifest.variants]:
        scorer = VariantScorer(args.package, variant, embeds=embeds, max_length=args.max_length)
        scores[variant] = [scorer.score(judged.pairs) for judged in sets]
        scorer.close()
    rows = rows_of(sets, scores, reference_of(list(scores), manifest))
    print_table(rows, [column for column in COLUMNS if any(column in row for row in rows)])
    write_json(args.json, rows)


def rows_of(sets: Sequence[Judged], scores: dict[str, list[Scores]], reference: str | None) -> list[dict[str, object]]:
    """A row for each data set and system. ``scores`` are each system's, in the order of ``sets``."""
    rows: list[dict[str, object]] = []
    for index, judged in enumerate(sets):
        expected = scores[reference][index] if reference else None
        if judged.name.startswith("scifact"):
            rows.append(_row(judged, "BM25", bm25_order(judged), None))
        for system, values in scores.items():
            rows.append(_row(judged, system, values[index], None if system == reference else expected))
    return rows


def reference_of(systems: Sequence[str], manifest: manifest_pb2.ModelManifest) -> str | None:
    """What the others are compared with: the original, else a float32 variant, else nothing."""
    exact = [variant.name for variant in manifest.variants if variant.precision == "fp32"]
    return next((name for name in (ORIGINAL, *exact) if name in systems), None)


def _row(judged: Judged, system: str, found: Scores, expected: Scores | None) -> dict[str, object]:
    metrics = judged.metrics(found)
    row: dict[str, object] = {"dataset": judged.name, "system": system, "pairs": len(judged.pairs), **metrics}
    if expected is None:
        return row
    name, value = next(iter(metrics.items()))
    was = judged.metrics(expected)[name]
    row["difference"] = value - was
    if name == "ndcg_at_10" and was:
        row["ndcg_relative"] = f"{value / was - 1:+.2%}"
    compared = agreement(found, expected)
    return row | {
        "max_abs_diff": compared["max_abs_diff"],
        "mean_abs_diff": compared["mean_abs_diff"],
        "rank_correlation": compared["spearman"],
    }


def _data_sets(args: argparse.Namespace, embeds: bool) -> list[Judged]:
    made = {
        "scifact": lambda: scifact(args.data, depth=args.depth, queries=args.queries),
        "stsb": lambda: stsb(args.data, limit=args.limit),
        "qnli": lambda: qnli(args.data, limit=args.limit),
    }
    if embeds and "qnli" in args.dataset:
        raise SystemExit(
            "--dataset: qnli asks for a score above 0.5, which a cosine is not; leave it out for a bi-encoder"
        )
    return [made[name]() for name in args.dataset]


def _score_original(args: argparse.Namespace, sets: Sequence[Judged], embeds: bool) -> list[Scores]:
    with tempfile.TemporaryDirectory(prefix="pairwire-quality-") as work:
        checkpoint = merged_checkpoint(args.checkpoint, Path(work))
        score = original(checkpoint, embeds=embeds, max_length=args.max_length)
        return [score(judged.pairs) for judged in sets]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument(
        "--package", type=Path, required=True, help="a package of a one-label cross-encoder or a bi-encoder"
    )
    parser.add_argument("--checkpoint", help="what the package was made of: directory, hub id or PEFT adapter")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--dataset", nargs="+", default=["scifact", "stsb"], choices=NAMES)
    parser.add_argument("--variant", nargs="+", help="only these variants (default: all of the package)")
    parser.add_argument("--depth", type=int, default=100, help="SciFact: candidates a query (default 100)")
    parser.add_argument("--queries", type=int, default=0, help="SciFact: only the first N queries (default all)")
    parser.add_argument("--limit", type=int, default=0, help="STS-B, QNLI: a sample of N pairs (default all)")
    parser.add_argument("--max-length", type=int, help="tokens an input is cut to (default: the model's own limit)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
