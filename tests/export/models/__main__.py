"""``python -m tests.export.models``: exports all cases and writes docs/models.md. Takes about half a minute."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .cases import CASES, REFUSALS
from .document import FILE, as_markdown
from .measure import measure, refused


def main() -> None:
    """Writes the document."""
    rows, refusals = [], {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(case, Path(folder))
            print(case.name)
    for refusal in REFUSALS:
        with tempfile.TemporaryDirectory() as folder:
            refusals[refusal.what] = refused(refusal, Path(folder))
    FILE.write_text(as_markdown(rows, refusals), encoding="utf-8")
    print(FILE)


if __name__ == "__main__":
    main()
