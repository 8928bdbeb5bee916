"""A bulk run that kills its own process: ``python -m tests.batch.killed PACKAGE INPUT OUTPUT LOG KILL_AT PROCESSES``.

It dies by SIGKILL at the KILL_AT-th event, counted from 1; 0 for never. Events are what changes the disk, before and
after it does: a write, an fsync, a rename. LOG gets a line with the number of items for every window that is computed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pairwire.batch import Job, planned, writing
from pairwire.batch.lanes import Where
from pairwire.batch.run import BulkConfig, run_bulk

SHARD_ROWS = 100


class Killer:
    """Counts events."""

    def __init__(self, at: int) -> None:
        self._left = at

    def event(self) -> None:
        """One of them."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with an event before and after it."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.event()
            found = function(*args, **kwargs)
            self.event()
            return found

        return watched


def logged(submit: Callable[..., None], log: Path) -> Callable[..., None]:
    """``PlannedModel.submit`` that writes down how many items are computed."""

    def watched(model: planned.PlannedModel, begun: planned.Begun) -> None:
        with log.open("a") as file:
            file.write(f"{sum(len(at) for at, _ in begun.batches)}\n")
        submit(model, begun)

    return watched


def main(package: str, given: str, output: str, log: str, kill_at: str, processes: str) -> None:
    """Runs until it is done or dead."""
    killer = Killer(int(kill_at))
    os.fsync = killer.around(os.fsync)
    Path.replace = killer.around(Path.replace)  # type: ignore[method-assign]
    writing.Part.write = killer.around(writing.Part.write)  # type: ignore[method-assign]
    planned.PlannedModel.submit = logged(planned.PlannedModel.submit, Path(log))  # type: ignore[method-assign]
    run_bulk(
        BulkConfig(
            job=Job.of("score"),
            inputs=[given],
            output=Path(output),
            where=Where(package=Path(package), engine={"warmup_s": 0.01}),
            shard_rows=SHARD_ROWS,
            processes=int(processes),
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
