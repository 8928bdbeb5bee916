"""Actors of Ray that die in the middle: ``python -m tests.cluster.killed_actors PACKAGE INPUT OUTPUT MARKS``.

Each of two rows kills the process of its actor, once. Ray starts another and gives it the batch again. Writes what
came of all rows.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from pairwire.batch import Scorer

FATAL_ROWS = (100, 700)


class MortalScorer(Scorer):
    """A `Scorer` whose process is killed the first time that it sees each fatal row."""

    def __init__(self, package: str, marks: str) -> None:
        super().__init__(package, engine={"workers": 1, "warmup_s": 0.01})
        self.marks = Path(marks)

    def __call__(self, batch: Any) -> Any:
        """Scores, or dies."""
        rows = set(batch["id"].to_pylist())
        for fatal in FATAL_ROWS:
            mark = self.marks / str(fatal)
            if fatal in rows and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def main(package: str, given: str, output: str, marks: str) -> None:
    """Scores the pairs of a file with two actors."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False)
    dataset = ray.data.read_parquet(given).map_batches(
        MortalScorer,
        fn_constructor_args=(package, marks),
        concurrency=2,
        num_cpus=1,
        batch_size=100,
        batch_format="pyarrow",
    )
    dataset.write_parquet(output)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
