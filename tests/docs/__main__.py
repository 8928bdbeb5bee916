"""``python -m tests.docs``: writes the pages that are made from the code."""

from __future__ import annotations

from .reference import DOCS, metrics_page, options_page

(DOCS / "options.md").write_text(options_page(), encoding="utf-8")
(DOCS / "metrics.md").write_text(metrics_page(), encoding="utf-8")
