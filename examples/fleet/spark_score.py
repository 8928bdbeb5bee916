"""Pairs scored on Spark: ``python -m examples.fleet.spark_score --package models/demo pairs.parquet -o scored``.

``--master local[2]`` runs it here; leave it out under ``spark-submit``. The package must be there on every node.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pairwire.batch import Scorer


def main() -> int:
    """Reads, scores, writes; prints how many rows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--master")
    args = parser.parse_args()

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # or its processes take the first python3 of the PATH
    from pyspark.sql import SparkSession
    from pyspark.sql.types import FloatType, StructField, StructType

    builder = SparkSession.builder.appName("pairwire")
    spark = (builder.master(args.master) if args.master else builder).getOrCreate()
    pairs = spark.read.parquet(str(args.input))
    scorer = Scorer(args.package.resolve(), engine={"workers": 1})  # Spark starts a process for each core
    schema = StructType([*pairs.schema.fields, StructField("score", FloatType())])
    pairs.mapInArrow(scorer.stream, schema).write.parquet(str(args.output))
    print(f"{spark.read.parquet(str(args.output)).count()} rows")
    spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
