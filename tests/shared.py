"""What a run makes once and all of its workers read: checkpoints, graphs, packages."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")


class Shared:
    """A folder of one run. The first who asks for a name makes it; every other worker waits for that, and reads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def directory(self, name: str, make: Callable[[Path], object]) -> Path:
        """The directory ``name`` (a path of two parts or more is allowed), filled by ``make``. Nobody may change it.

        Where ``make`` raises, nothing stays, and the next who asks tries again.
        """
        target = self._root / name
        made = target.with_name(target.name + ".made")
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not made.exists():
                try:
                    make(target)
                except BaseException:
                    shutil.rmtree(target, ignore_errors=True)
                    raise
                made.touch()
        return target

    def value(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` returns: anything that pickle can write."""

        def write(directory: Path) -> None:
            directory.mkdir()
            (directory / "value").write_bytes(pickle.dumps(make()))

        found: T = pickle.loads((self.directory(name, write) / "value").read_bytes())
        return found
