"""The files below deploy/, read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
ALERTS = DEPLOY / "grafana" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
RULE = KUBERNETES / "components" / "monitoring" / "prometheusrule.yaml"
OVERLAYS = sorted(path.parent for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))

Document = dict[str, Any]

_HEAD = """# Written by `python -m tests.deploy` from deploy/grafana/alerts.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pairwire
  labels:
    app.kubernetes.io/name: pairwire
spec:
"""


def rule_manifest() -> str:
    """The PrometheusRule with the rules of ALERTS."""
    rules = ALERTS.read_text(encoding="utf-8")
    body = rules[rules.index("groups:") :]
    return _HEAD + "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))


def documents(path: Path) -> list[Document]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def text_files() -> list[Path]:
    """Every file that is deployed."""
    return sorted(path for path in DEPLOY.rglob("*") if path.is_file())


def walk(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Every value inside a document, with the keys that lead there."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from walk(inner, (*path, at))
