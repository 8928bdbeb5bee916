"""Refuses checkpoints whose weights depend on a task that every call names, as jina-embeddings-v3's do.

Such a checkpoint has LoRA weights for each task beside those of the model, and code of its own that adds the right ones
to each row of a batch. A package has one set of weights, which is what makes it fast and its scores comparable; so a
task is chosen at export, by merging its adapter. That is said before anybody is asked to trust the code in vain.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointUnsupported
from .source import read_json

_TASKS = "lora_adaptations"
"""In config.json: the names of the tasks."""


def check_tasks(directory: Path) -> None:
    """Raises where a call would have to name a task.

    Raises:
        CheckpointUnsupported: names the tasks, and says what to export instead.
    """
    tasks = read_json(directory / "config.json").get(_TASKS)
    if isinstance(tasks, list) and tasks:
        raise CheckpointUnsupported(
            f"its weights depend on a task that each call names ({', '.join(map(str, tasks))}: {_TASKS} in"
            " config.json), and a package has one set of weights; merge the adapter of one task into the model, or take"
            " a release that has its adapters as PEFT ones, and export a package for each task that you need"
        )
