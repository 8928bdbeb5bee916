"""Alert rules and dashboard: Prometheus takes them, and each alert fires when it should and not otherwise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.deploy.files import ALERTS, DASHBOARD, RULE, documents, rule_manifest, walk
from tests.deploy.tools import run, tool

RULES = [rule for group in documents(ALERTS)[0]["groups"] for rule in group["rules"]]
CASES = Path(__file__).parent / "alert_cases.yaml"


def test_the_operators_rules_are_current() -> None:
    assert RULE.read_text(encoding="utf-8") == rule_manifest(), "run `python -m tests.deploy`"
    (rule,) = documents(RULE)
    assert rule["spec"] == documents(ALERTS)[0]


def test_prometheus_takes_the_rules() -> None:
    run(tool("promtool"), "check", "rules", ALERTS)


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    promtool = tool("promtool")
    (tmp_path / ALERTS.name).write_bytes(ALERTS.read_bytes())
    (tmp_path / CASES.name).write_bytes(CASES.read_bytes())
    run(promtool, "test", "rules", tmp_path / CASES.name)


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    (cases,) = documents(CASES)
    fired = {
        case["alertname"]
        for test in cases["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in RULES if "alert" in rule}


def test_every_alert_says_what_it_means_and_how_bad_it_is() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"].keys() == {"summary", "description"}


def _queries() -> list[str]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [str(value) for path, value in walk(board) if path and path[-1] == "expr"]


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    promtool = tool("promtool")
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__rate_interval", "5m", query)}
        for number, query in enumerate(_queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    run(promtool, "check", "rules", file)


def test_panels_do_not_cover_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
