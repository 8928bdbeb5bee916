"""What the files below deploy/ call by name is there in the code: options, variables, series, ports, health, RPCs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pairwire.cli.main import build_parser
from pairwire.server.config import VARIABLES_OF_THE_CLIENT, ListenConfig, ServerConfig
from pairwire.server.metrics import TABLE
from pairwire.server.options import options_of
from pairwire.server.processes.totals import Reading, shown
from pairwire.server.rpc.health import OVERALL, SERVICES
from tests.deploy.files import ALERTS, DASHBOARD, DEPLOY, ROOT, documents, text_files, walk

FILES = text_files()
OPTIONS = {option.variable: option for option in options_of(ServerConfig)}
FLAGS = {option.flag for option in OPTIONS.values()}
_FROM_PROMETHEUS = {"namespace", "pod", "instance", "job"}
"""Labels that a scrape adds."""
_FROM_PYTHON = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"} | {
    "process_start_time_seconds"
}
_QUERY = re.compile(r"\b(pairwire[:_][a-z0-9_:]+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\b(?:by|without) \(([^)]*)\)")


def _series() -> dict[str, set[str]]:
    """Name as Prometheus has it -> its labels."""
    found: dict[str, set[str]] = {}
    for series in TABLE:
        suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[series.kind]
        for suffix in suffixes:
            found[series.name + suffix] = {*series.labels, *({"le"} if suffix == "_bucket" else ())}
    supervisor = shown(Reading(retired=(), texts=(), processes=1, ready=1, restarts=0))
    for family in supervisor:
        found[family.name + ("_total" if family.type == "counter" else "")] = {"process"}
    for group in documents(ALERTS)[0]["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                found[rule["record"]] = {"code"}
    return found


def _expressions() -> Iterator[tuple[str, str]]:
    for group in documents(ALERTS)[0]["groups"]:
        for rule in group["rules"]:
            yield f"alerts.yaml {rule.get('alert') or rule['record']}", rule["expr"]
    for path, value in walk(json.loads(DASHBOARD.read_text(encoding="utf-8"))):
        if path and path[-1] in ("expr", "query") and isinstance(value, str) and "pairwire" in value:
            yield f"dashboard.json {path}", value
    for file in (DEPLOY / "kubernetes").rglob("*.yaml"):
        for document in documents(file):
            for path, value in walk(document):
                if path and path[-1] == "query":
                    yield f"{file.name} {path}", str(value)


EXPRESSIONS = list(_expressions())


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 30
    assert len(EXPRESSIONS) > 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_every_variable_is_an_option(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    unknown = {name for name in re.findall(r"\bPAIRWIRE_[A-Z_]+", text) if name not in OPTIONS}
    assert not unknown - VARIABLES_OF_THE_CLIENT
    for name, value in re.findall(r"^[^#\n]*?\b(PAIRWIRE_[A-Z_]+)[=:] ?\"?([^\s\"]+)", text, re.MULTILINE):
        OPTIONS[name].parse(value, f"{file.name}: {name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_every_option_that_a_comment_names_is_one(file: Path) -> None:
    comments = [line for line in file.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("#")]
    named = {flag for line in comments for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*(?=[ ),.:]|$)", line)}
    assert not named - FLAGS - {"--target", "--build", "--build-arg"}


def _commands() -> Iterator[tuple[str, list[str]]]:
    """(where, the arguments of ``pairwire``)."""
    for file in FILES:
        if file.suffix == ".yaml":
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                for path, value in walk(document):
                    if path and path[-1] in ("args", "command", "test") and isinstance(value, list):
                        words = [str(word) for word in value if word not in ("CMD", "pairwire")]
                        if words and words[0] in ("serve", "export", "models"):
                            yield f"{file.name} {path}", words
        elif file.name == "Containerfile":
            for line in re.findall(r"^CMD (\[.*\])", file.read_text(encoding="utf-8"), re.MULTILINE):
                yield file.name, json.loads(line)
        elif file.suffix == ".service":
            for line in re.findall(r"^ExecStart=\S*/pairwire (.*)", file.read_text(encoding="utf-8"), re.MULTILINE):
                yield file.name, line.split()


@pytest.mark.parametrize(("where", "words"), list(_commands()))
def test_every_command_can_be_read(where: str, words: list[str]) -> None:
    if words == ["--help"]:
        return
    build_parser().parse_args(words)  # ends the test where it cannot


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_series_and_label_of_a_query_is_there(where: str, expression: str) -> None:
    series = _series()
    labels: set[str] = set()
    for name, matchers in _QUERY.findall(expression):
        assert name in series, f"{where}: no series {name}"
        labels |= series[name]
        matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert matched <= series[name] | _FROM_PROMETHEUS, f"{where}: {name} has no label {matched - series[name]}"
    for name in re.findall(r"\bprocess_[a-z_]+", expression):
        assert name in _FROM_PYTHON, f"{where}: no series {name}"
    for names in _BY.findall(expression):
        grouped = {name.strip() for name in names.split(",")}
        assert grouped <= labels | _FROM_PROMETHEUS, f"{where}: nothing has the label {grouped - labels}"


def test_every_port_is_one_that_the_server_listens_on() -> None:
    ours = {ListenConfig().port, ListenConfig().metrics_port}
    seen = set()
    for folder in ("kubernetes", "kserve"):
        for file in (DEPLOY / folder).rglob("*.yaml"):
            for document in documents(file):
                for path, value in walk(document):
                    if path and path[-1] in ("containerPort", "port", "targetPort") and isinstance(value, int):
                        seen.add(value)
                        assert value in ours | {53, 443}, f"{file.name} {path}"
    assert ours <= seen
    assert {int(port) for port in re.findall(r"EXPOSE (\d+) (\d+)", _containerfile())[0]} == ours
    targets = (DEPLOY / "compose" / "prometheus.yaml").read_text(encoding="utf-8")
    assert f"pairwire:{ListenConfig().metrics_port}" in targets


def test_every_health_that_is_asked_for_is_known() -> None:
    asked = set()
    for file in DEPLOY.rglob("*.yaml"):
        for document in documents(file):
            for path, value in walk(document):
                if path and path[-1] in ("grpc", "grpc_health_check") and isinstance(value, dict) and value:
                    asked.add(value.get("service", value.get("service_name", OVERALL)))
    assert asked == {OVERALL, "pairwire.v1.ModelService"}
    assert asked <= {OVERALL, *SERVICES}


def test_a_gateway_lets_through_the_services_that_there_are() -> None:
    text = (DEPLOY / "mesh" / "envoy-gateway.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"method: \{service: ([\w.]+)\}", text)) == set(SERVICES)


def test_files_that_the_files_name_are_there() -> None:
    named = {
        name for file in FILES for name in re.findall(r"\b((?:docs|deploy)/[\w/.-]+\.\w+)", file.read_text("utf-8"))
    }
    assert not [name for name in named if not (ROOT / name).exists()]


def _containerfile() -> str:
    return (DEPLOY / "Containerfile").read_text(encoding="utf-8")
