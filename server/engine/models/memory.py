"""Brings memory to its height before serving: the largest batches of each model, on all workers at once.

An arena keeps what it was ever asked for. Without this it grows in steps of some MiB whenever workers happen to run
batches at the same time that need more than any two before, which may take hours to happen first.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ...errors import PackageInvalid
from ...runtime.packed import is_packed
from ..batching.buckets import Bucket
from ..watchdog import Watchdog
from .model import Model
from .watched import watched


def largest_batches(model: Model) -> list[Bucket]:
    """Batches that need the most memory: of the longest rows, of the longest that may be padded, of the shortest."""
    ladder = model.ladder
    levels = dict.fromkeys((len(ladder) - 1, max(0, ladder.unpadded_level - 1), 0))
    return [
        Bucket(
            1 if level >= ladder.unpadded_level else len(model.costs.batch_seconds(level)) - 1, ladder.lengths[level]
        )
        for level in levels
    ]


def bring_to_height(models: Sequence[Model], workers: int, watchdog: Watchdog | None = None) -> None:
    """Runs each of these batches on as many threads at once as there are workers: some tenths of a second a model.

    ``watchdog`` ends runs that hang.

    Raises:
        PackageInvalid: a model cannot run them, for want of memory most likely.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="pairwire-warm") as pool:
        for model in models:
            if is_packed(model.runtime):
                continue  # it has run all its shapes, and runs one at a time
            for bucket in largest_batches(model):
                batch = model.encoder.blank(bucket.rows, bucket.length)
                for run in [pool.submit(watched(model.runtime, watchdog).run, batch) for _ in range(workers)]:
                    try:
                        run.result()
                    except Exception as error:  # whatever the runtime raises
                        raise PackageInvalid(
                            f"{model.name}: {workers} workers cannot run {bucket.rows} rows of {bucket.length} tokens "
                            f"at once ({error}); allow more memory, or give fewer workers or batch_tokens"
                        ) from error
