"""The engine over files and tables: bulk runs that can be killed, and one object for Ray, Spark and DuckDB.

    scorer.py         Scorer: a picklable callable over tables
    sharing.py        one engine a process, for all of them        engine_thread.py   that any thread may call
    answering.py      many requests of the engine, in flight       engine_options.py  the client's -> the engine's
    tables.py         Arrow, pandas and numpy, in and out
    job.py            what is asked of a model                     texts.py           tables -> texts and pairs
    answers.py        what a model made of them                    columns.py         answers -> columns of a table

A bulk run, in the order of its way:
    run.py            all of it, in one process or several         lanes.py    which process does which shard
    inputs.py         files, directories, globs -> input files     sources.py  one of them, piece by piece
    lines.py          JSON lines and CSV, line by line             shards.py   pieces -> shards and windows
    distinct.py       equal texts are computed once
    planned.py        a model here, in batches that depend on the input alone    remote.py  or servers
    identity.py       what tells a model from every other
    writing.py        one file a shard, whole or not at all        manifest.py what is done, and what may be mixed
    worker.py         the loop over all that                       progress.py what a person sees of it
    errors.py         why a run ends

ray.py is a deployment of Ray Serve, whose gRPC proxy the shipped clients talk to.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .job import Job, Task
    from .run import BulkConfig, Summary, run_bulk
    from .scorer import Scorer

_HOMES = {
    "BulkConfig": ".run",
    "Job": ".job",
    "Scorer": ".scorer",
    "Summary": ".run",
    "Task": ".job",
    "run_bulk": ".run",
}

__all__ = ["BulkConfig", "Job", "Scorer", "Summary", "Task", "run_bulk"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
