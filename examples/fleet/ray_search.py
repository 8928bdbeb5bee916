"""Search on Ray: embed a corpus, find the nearest texts of each query, rerank them. On one machine or on a cluster.

    python -m examples.fleet.ray_search --embedder models/mini --reranker models/demo --corpus corpus.parquet \
        --queries queries.parquet -o found --actors 2 [--address ray://HEAD:10001] [--checkpoint /shared/checkpoint]

The corpus has the columns id and text, the queries text. With ``--address`` all paths must be there on every node. With
``--checkpoint`` a run that was killed goes on: rows whose vectors were written are not embedded again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairwire.batch import Scorer

BATCH_ROWS = 256


def embed_corpus(args: argparse.Namespace) -> Path:
    """Writes id, text and embedding of the corpus."""
    import ray

    if args.checkpoint:
        from ray.data.checkpoint import CheckpointConfig

        context = ray.data.DataContext.get_current()
        context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(args.checkpoint))
    vectors = Path(args.output) / "vectors"
    scored(ray.data.read_parquet(str(args.corpus)), args, args.embedder, "embed").write_parquet(str(vectors))
    if args.checkpoint:
        context.checkpoint_config = None  # the queries have no ids
    return vectors


def scored(dataset: Any, args: argparse.Namespace, package: Path, task: str) -> Any:
    """A dataset with the results of a task: ``--actors`` processes with ``--cpus`` CPUs, each with an engine."""
    return dataset.map_batches(
        Scorer,
        fn_constructor_args=(str(package), task),
        fn_constructor_kwargs={"engine": {"workers": args.cpus}},
        concurrency=args.actors,
        num_cpus=args.cpus,
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
    )


def nearest(vectors: Path, queries: list[str], args: argparse.Namespace) -> pa.Table:
    """The queries with the ids and texts of the ``--keep`` documents that are nearest to each."""
    corpus = pq.read_table(vectors)
    matrix = np.stack(corpus["embedding"].to_numpy())
    with Scorer(args.embedder, "embed", engine={"workers": args.cpus}) as embedder:
        asked = np.stack(embedder(pa.table({"text": queries}))["embedding"].to_numpy())
    best = np.argsort(-(asked @ matrix.T), axis=1, kind="stable")[:, : args.keep]
    texts, ids = corpus["text"].to_pylist(), corpus["id"].to_pylist()
    documents = [[texts[at] for at in row] for row in best]
    return pa.table({"query": queries, "documents": documents, "ids": [[ids[at] for at in row] for row in best]})


def main() -> int:
    """Embeds, searches, reranks; prints the best document of each query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--reranker", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--address", help="of a cluster; without it, Ray is started here")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of each actor")
    parser.add_argument("--keep", type=int, default=20, help="documents of each query that are reranked")
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()

    import ray

    # Ray counts CPUs and does not look at them. Reading and writing need some too, or they would wait for ever.
    here = None if args.address else max(os.cpu_count() or 1, args.actors * args.cpus + 2)
    ray.init(address=args.address, num_cpus=here, include_dashboard=False)
    vectors = embed_corpus(args)
    queries = pq.read_table(args.queries)["text"].to_pylist()
    found = scored(ray.data.from_arrow(nearest(vectors, queries, args)), args, args.reranker, "rerank")
    rows = sorted(found.take_all(), key=lambda row: queries.index(row["query"]))
    for row in rows:
        best = row["indices"][0]
        print(f"{row['query']}\t{row['ids'][best]}\t{row['scores'][0]:.4f}\t{row['documents'][best]}")
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
