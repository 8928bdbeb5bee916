"""``python -m tests.deploy``: writes the rules for the Prometheus operator from those for Prometheus."""

from __future__ import annotations

from .files import RULE, rule_manifest

RULE.write_text(rule_manifest(), encoding="utf-8")
