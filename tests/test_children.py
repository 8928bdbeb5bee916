"""Children are started by `subprocess` or spawned: no code of ours runs between a fork and the new program.

A forked child has one thread, and every lock that the other threads held stays locked: gRPC's, torch's, malloc's. When
it needs one of them it hangs: now and then, on a busy machine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "cli", "client", "examples", "export", "protos", "server", "tests")

FORKS = {"os.fork", "os.forkpty", "pty.fork", "pty.spawn", "multiprocessing.set_start_method"}
SPAWNED = {
    f"multiprocessing.{name}" for name in ("Pool", "Process", "Manager", "Queue", "Pipe", "Lock", "Event", "Value")
}
"""Of the default context, which forks on Linux before Python 3.14: to be made by ``get_context("spawn")``."""
CONTEXTS = {"multiprocessing.get_context", "torch.multiprocessing.get_context"}
POOLS = {"concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process.ProcessPoolExecutor"}


def names_of(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: ``{"mp": "multiprocessing", "fork": "os.fork"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def path_of(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted path that an expression spells, with imported names resolved; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (owner := path_of(node.value, names)):
        return f"{owner}.{node.attr}"
    return ""


def is_spawn(context: ast.expr | None) -> bool:
    return isinstance(context, ast.Constant) and context.value == "spawn"


def forks(source: str) -> Iterator[tuple[int, str]]:
    """The lines of a module that fork, or let code run in a forked child, and what they use."""
    tree = ast.parse(source)
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn":
            yield node.value.lineno, "preexec_fn"
        elif isinstance(node, ast.Constant) and node.value == "preexec_fn":  # a key of options
            yield node.lineno, "preexec_fn"
        elif isinstance(node, ast.Name | ast.Attribute) and (path := path_of(node, names)) in FORKS | SPAWNED:
            yield node.lineno, path
        elif isinstance(node, ast.Call):
            path = path_of(node.func, names)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if path in CONTEXTS and not is_spawn(node.args[0] if node.args else keywords.get("method")):
                yield node.lineno, f'{path} of another method than "spawn"'
            elif path in POOLS and len(node.args) < 2 and "mp_context" not in keywords:
                yield node.lineno, f"{path} without mp_context"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_code_runs_in_a_forked_child(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(__file__)
        for line, what in forks(path.read_text(encoding="utf-8"))
    ]
    assert found == [], "start children by subprocess without preexec_fn, or multiprocessing.get_context('spawn')"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("subprocess.Popen(['a'], preexec_fn=f)", "preexec_fn"),
        ("options = {'preexec_fn': f}", "preexec_fn"),
        ("import os\nos.fork()", "os.fork"),
        ("from os import fork as split\nsplit()", "os.fork"),
        ("import pty\npty.spawn('sh')", "pty.spawn"),
        ("import multiprocessing as mp\nmp.Pool(2)", "multiprocessing.Pool"),
        ("from multiprocessing import Process\nProcess(target=f)", "multiprocessing.Process"),
        ("import multiprocessing\nmultiprocessing.get_context()", "another method"),
        ("import multiprocessing\nmultiprocessing.get_context('fork').Pool()", "another method"),
        ("import multiprocessing\nmultiprocessing.get_context(method='forkserver')", "another method"),
        ("import multiprocessing\nmultiprocessing.set_start_method('fork')", "set_start_method"),
        ("from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2)", "without mp_context"),
        ("import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()", "without mp_context"),
    ],
)
def test_every_way_to_fork_is_seen(source: str, what: str) -> None:
    assert any(what in found for _, found in forks(source))


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.Popen(['a'], start_new_session=True, process_group=0)",
        "import multiprocessing\nmultiprocessing.get_context('spawn').Pool(1)",
        "import pty\npty.openpty()",
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(mp_context=spawn)",
    ],
)
def test_what_forks_nothing_is_allowed(source: str) -> None:
    assert list(forks(source)) == []
