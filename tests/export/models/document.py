"""docs/models.md: what the tests of `cases` found, as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .measure import Row

FILE = Path(__file__).parents[3] / "docs" / "models.md"
_INTRO = """# Models

Written by `python -m tests.export.models`, from small random checkpoints of each architecture (2 layers of 32 units)
that are exported and compared with sentence-transformers on texts made to trip tokenizers, templates and truncation.
`tests/export/models` asserts every row; `pairwire export` measures the same of every checkpoint that it exports.

The difference is the largest one from sentence-transformers, per unit of the largest number above 1: of raw logits, of
scores where a cross-encoder has several labels, or of the components of vectors. Spearman is the rank correlation of
scores, or of the cosines of all pairs of vectors. Random weights round worse than trained ones: int8 and fp16 rows tell
that a graph is whole, not what a trained model loses; `benchmarks.quality` measures that.

"Own code" needs `--trust-remote-code`: the code of the checkpoint runs at export, and never in the server. optimum
traces what it knows; `torch.jit.trace` and then `torch.export` trace everything else, and without optimum all of it. A
graph is taken only if it agrees with the checkpoint on rows of several lengths, alone and together. Where a pass leaves
an architecture alone, fp32 and int8 work, and only that gain is missing. [export.md](export.md) has the two sets of
libraries that an export may run on.
"""


def as_markdown(rows: Sequence[Row], refusals: Mapping[str, str]) -> str:
    """The document."""
    lines = [_INTRO, "## What is exported", ""]
    lines += ["| Architecture | Task | Precision | Difference | Spearman | Traced by | Passes |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [_line(row) for row in rows if row.passes is not None]
    lines += [
        "",
        "## Passes that leave something alone, and why",
        "",
        "| Pass | Reason | Architectures |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {reason} | {', '.join(models)} |" for (name, reason), models in _left_alone(rows).items()]
    lines += ["", "## Refused, and why", "", "| What | What `pairwire export` says |", "|---|---|"]
    lines += [f"| {row.model}, {row.task}: {row.precision} | {row.refused} |" for row in rows if row.refused]
    lines += [f"| {what} | {reason} |" for what, reason in refusals.items()]
    return "\n".join(lines) + "\n"


def structure(text: str) -> list[str]:
    """The lines, with words for what was measured: another machine rounds otherwise."""
    return [_MEASURED.sub(_rounded, line) for line in text.splitlines()]


def _line(row: Row) -> str:
    passes = ", ".join(f"{name} {count}" for name, count in (row.passes or {}).items())
    cells = (row.model, row.task, row.precision, f"{row.difference:.0e}", f"{row.spearman:.3f}", row.traced_by, passes)
    return f"| {' | '.join(cells)} |"


def _left_alone(rows: Sequence[Row]) -> dict[tuple[str, str], list[str]]:
    """(pass, reason) -> the architectures where it is so."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in (row.reasons or {}).items():
            models = found.setdefault((name, _general(reason)), [])
            model = row.model.split(" (")[0]
            if model not in models:
                models.append(model)
    return dict(sorted(found.items()))


def _general(reason: str) -> str:
    """Without the names of nodes, of which every layer and every exporter has others."""
    return re.sub(r"/\S*\w", "...", reason)


ORDER = 0.95
"""Spearman from which a variant of random weights counts as whole; a trained one loses less."""
_MEASURED = re.compile(r"\| (\d(?:\.\d+)?e[-+]\d+) \| (\d\.\d+) \|")


def _rounded(found: re.Match[str]) -> str:
    difference = "exact" if float(found[1]) < 1e-5 else "rounded"
    return f"| {difference} | {'same order' if float(found[2]) >= ORDER else 'another order'} |"
