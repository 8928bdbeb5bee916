"""Options and texts may stand in any order, for every command; after `--` everything is a text."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from pairwire.cli.main import build_parser
from tests.cli.conftest import Run


def _parsed(*arguments: str) -> dict[str, Any]:
    return vars(build_parser().parse_args(arguments))


ORDERS: list[tuple[str, list[list[str]], list[str]]] = [
    ("rerank", [["--top-k", "1"], ["--json"], ["--prompt=x"]], ["q", "a", "b"]),
    ("rerank", [["-k1"], ["--local", "dir"], ["--priority", "low"]], ["q", "a"]),
    ("score", [["--json"], ["--model", "m"]], ["a", "b", "c"]),
    ("embed", [["-o", "x.npy"], ["--dimensions", "3"], ["--normalize"]], ["a", "b"]),
    ("embed-sparse", [["--max-active-dims", "3"], ["--json"]], ["a", "b"]),
    ("models", [["--address", "h:1"], ["--timeout", "3"]], []),
    ("inspect", [], ["dir"]),
    ("tune", [["--dry-run"]], ["dir"]),
    ("profile", [["--variant", "v"]], ["dir"]),
    ("export", [["-o", "out"], ["--precision", "int8"], ["--no-tune"]], ["checkpoint"]),
    ("serve", [["--port", "0"], ["--host", "h"]], ["one", "two"]),
]


@pytest.mark.parametrize(("command", "options", "texts"), ORDERS)
def test_every_order_means_the_same(command: str, options: list[list[str]], texts: list[str]) -> None:
    expected = _parsed(command, *itertools.chain(*options), *texts)
    pieces = [*options, *([text] for text in texts)]
    for order in itertools.permutations(range(len(pieces))):
        kept = [at for at in order if at >= len(options)]
        if kept != sorted(kept):
            continue  # the texts' own order is not to change
        assert _parsed(command, *itertools.chain.from_iterable(pieces[at] for at in order)) == expected


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--", "-a", "--json"], ["-a", "--json"]),
        (["a", "--", "-b"], ["a", "-b"]),
        (["--json", "a", "--", "--", "b"], ["a", "--", "b"]),
        (["a", "--json", "--", "--"], ["a", "--"]),
        (["a", "-1", "--json", "-2.5"], ["a", "-1", "-2.5"]),
        (["a", "-", "--json"], ["a", "-"]),
        (["- a list", "--json", "-x y"], ["- a list", "-x y"]),
        (["", "--json", " "], ["", " "]),
    ],
)
def test_texts_that_look_like_options(arguments: list[str], texts: list[str]) -> None:
    assert _parsed("score", *arguments)["texts"] == texts
    assert _parsed("embed", *arguments)["texts"] == texts
    ranked = _parsed("rerank", *arguments)
    assert [ranked["query"], *ranked["documents"]] == texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rerank", "q", "--top-k"], "argument -k/--top-k: expected one argument"),
        (["rerank", "q", "--top-k", "--", "a"], "argument -k/--top-k: expected one argument"),
        (["rerank", "q", "--top-k", "--json", "a"], "argument -k/--top-k: expected one argument"),
        (["rerank", "q", "--top-k", "0", "a"], "'0' is not a whole number of at least 1"),
        (["rerank", "q", "--topk", "1", "a"], "unrecognized arguments: --topk"),
        (["score", "a", "--p", "x", "b"], "ambiguous option: --p"),
        (["score", "a", "--json=1", "b"], "ignored explicit argument '1'"),
        (["embed", "a", "-o", "x.npy", "b", "--json"], "not allowed with argument"),
        (["models", "surplus"], "unrecognized arguments: surplus"),
        (["inspect"], "the following arguments are required: DIR"),
    ],
)
def test_what_is_wrong_is_still_told(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert message in done.err


def test_a_shortened_option_takes_its_value() -> None:
    assert _parsed("rerank", "q", "--top", "2", "a")["top_k"] == 2


def test_documents_after_an_option_are_ranked(remote: Run) -> None:
    done = remote("rerank", "q", "--top-k", "1", "bb", "a", "--json")
    assert done.code == 0, done.err
    assert len(done.lines) == 1
    assert '"query": "q"' in done.lines[0]


def test_a_path_may_stand_between_options(run: Run, tmp_path: Path) -> None:
    done = run("tune", "--dry-run", str(tmp_path / "none"), "--variant", "v")
    assert done.code != 0
    assert "manifest.json" in done.err
