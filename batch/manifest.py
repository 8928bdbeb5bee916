"""What a run has done, in its output directory, and what may go on there.

    run.json         what the run is: package, task, options, inputs; another run is refused
    manifest.jsonl   a line for each finished part; a part without a line is made again
    errors.jsonl     a line for each bad row, written when the run ends
    .lock            held by whoever writes there

A lane of a run that is shared (`--shard`, `--processes`) has a manifest of its own, so that no two processes write to
one file; all manifests are read, whoever wrote them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import MixedRun
from .writing import json_line, sync_directory, writing

RUN = "run.json"
_LOCK = ".lock"

Line = dict[str, Any]


@contextlib.contextmanager
def locked(directory: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Keeps others out: a whole run everybody, a shard of a run those who do the same shard and whole runs.

    Raises:
        MixedRun: somebody is there.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    index, of = shard
    with contextlib.ExitStack() as stack:
        _lock(stack, directory / _LOCK, fcntl.LOCK_SH if of > 1 else fcntl.LOCK_EX)
        if of > 1:
            _lock(stack, directory / f"{_LOCK}-{index}-of-{of}", fcntl.LOCK_EX)
        yield


def _lock(stack: contextlib.ExitStack, path: Path, kind: int) -> None:
    with writing(path):
        file = stack.enter_context(path.open("a"))
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MixedRun(f"{path.parent}: another run is writing there; wait for it, or choose another") from None


def claim(directory: Path, run: Mapping[str, Any]) -> None:
    """Writes down what the run is, or checks that it is the one that is written down there.

    Raises:
        MixedRun: it is another; the sentence says in what.
        OutputFailed: it cannot be written.
    """
    path = directory / RUN
    if not path.exists():
        aside = directory / f".{RUN}.{os.getpid()}.tmp"
        with writing(path):
            aside.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            with contextlib.suppress(FileExistsError):  # another shard was first
                os.link(aside, path)
            aside.unlink()
            sync_directory(directory)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MixedRun(f"{path}: cannot be read ({error}); choose another directory") from error
    wanted = json.loads(json.dumps(run))
    if known == wanted:
        return
    names = [name for name in sorted({*known, *wanted}) if known.get(name) != wanted.get(name)]
    raise MixedRun(f"{directory}: belongs to another run; {_difference(names[0], known, wanted)}")


def _difference(name: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if name == "inputs":
        before = {each["url"]: each for each in known["inputs"]}
        after = {each["url"]: each for each in wanted["inputs"]}
        for url in sorted({*before, *after}):
            if before.get(url) != after.get(url):
                word = "is new" if url not in before else "is gone" if url not in after else "has changed"
                return f"the input {url} {word} since that began. Put it back, or choose another directory"
        return "the inputs come in another order. Give them as before, or choose another directory"
    return (
        f"{name} was {json.dumps(known.get(name), ensure_ascii=False)} and is now "
        f"{json.dumps(wanted.get(name), ensure_ascii=False)}. Give it as before, or choose another directory"
    )


def lane_name(shard: tuple[int, int], lane: int | None = None) -> str:
    """The end of the names of a shard's files, or of those of one of its lanes."""
    name = "" if shard[1] == 1 else f"-{shard[0]:05d}-of-{shard[1]:05d}"
    return name if lane is None else f"{name}.lane-{lane:05d}"


class Manifest:
    """The lines of one lane."""

    def __init__(self, directory: Path, name: str) -> None:
        """``name`` is of `lane_name`."""
        self._directory = directory
        self._path = directory / f"manifest{name}.jsonl"
        self._name = name

    def append(self, line: Line) -> None:
        """A part is finished.

        Raises:
            OutputFailed: that cannot be written; the part will be made again.
        """
        with writing(self._path), self._path.open("ab") as file:
            file.write(json_line(line))
            file.flush()
            os.fsync(file.fileno())

    def settle(self, further: Sequence[Line] = ()) -> list[Line]:
        """Puts the lines of the lane, and those of lanes below it, in one file and in order, and writes errors.jsonl.

        ``further`` are errors of a part that is not finished. The lines are returned.

        Raises:
            OutputFailed: it cannot be written.
        """
        below = sorted(self._directory.glob(f"manifest{self._name}.lane-*.jsonl"))
        lines = _distinct([line for path in (self._path, *below) for line in read_lines(path)])
        errors = [{"input": line["input"]["url"], **error} for line in lines for error in line["errors"]] + list(
            further
        )
        with writing(self._path):
            _replace(self._path, lines)
            _replace(self._directory / f"errors{self._name}.jsonl", errors)
            for path in below:
                path.unlink()
            sync_directory(self._directory)
        return lines


def finished(directory: Path) -> dict[str, Line]:
    """Lines of all parts that are there, by their names."""
    lines = [line for path in sorted(directory.glob("manifest*.jsonl")) for line in read_lines(path)]
    return {line["part"]: line for line in _distinct(lines) if _is_there(directory, line)}


def read_lines(path: Path) -> list[Line]:
    """The lines of a manifest; one that was being written when its process was killed is none."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for each in raw.splitlines(keepends=True):
        with contextlib.suppress(ValueError):
            if each.endswith(b"\n"):
                found.append(json.loads(each))
    return found


def _is_there(directory: Path, line: Line) -> bool:
    try:
        return bool((directory / line["part"]).stat().st_size == line["bytes"])
    except FileNotFoundError:
        return False


def _distinct(lines: Sequence[Line]) -> list[Line]:
    by_part = {line["part"]: line for line in lines}
    return [by_part[part] for part in sorted(by_part)]


def _replace(path: Path, lines: Sequence[Line]) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.writelines(map(json_line, lines))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
