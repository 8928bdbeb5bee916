"""Scores in SQL: ``python -m examples.fleet.duckdb_score --package models/demo pairs.parquet``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pairwire.batch import Scorer


def main() -> int:
    """Prints the ten best pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("--package", type=Path, required=True)
    args = parser.parse_args()

    import duckdb

    with duckdb.connect() as connection, Scorer(args.package) as scorer:
        connection.create_function("score", scorer.function(), ["VARCHAR", "VARCHAR"], "FLOAT", type="arrow")
        best = connection.execute(
            "SELECT score(first, second) AS score, first, second FROM read_parquet(?) ORDER BY score DESC LIMIT 10",
            [str(args.input)],
        )
        for score, first, second in best.fetchall():
            print(f"{score:.4f}\t{first}\t{second}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
