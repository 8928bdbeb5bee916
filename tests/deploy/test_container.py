"""Containerfile and Compose file: linted, complete, and as the server needs them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from pairwire.server.config import DrainConfig
from pairwire.server.serving import LAST_WORDS_S
from tests.deploy.files import DEPLOY, ROOT, documents
from tests.deploy.tools import run, tool

CONTAINERFILE = DEPLOY / "Containerfile"
TEXT = CONTAINERFILE.read_text(encoding="utf-8")
COMPOSE = DEPLOY / "compose" / "compose.yaml"
COPIED = {
    word
    for line in re.findall(r"^COPY (?!--from)(.*)", TEXT, re.MULTILINE)
    for word in line.split()[:-1]
    if not word.startswith("$")
}


def stages() -> dict[str, str]:
    """Name of a stage -> its lines."""
    parts = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
    return {re.match(r"\S+ AS (\S+)", part)[1]: part for part in parts}  # type: ignore[index]


def test_hadolint_has_nothing_to_say() -> None:
    run(tool("hadolint"), "--failure-threshold", "info", CONTAINERFILE)


def test_what_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {folder.split("/")[0] for folder in project["tool"]["setuptools"]["package-dir"].values()}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    assert folders | files == COPIED


def test_what_is_copied_is_sent_to_the_builder() -> None:
    lines = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == COPIED | {"models"}


def test_nothing_that_runs_is_root() -> None:
    made = stages()
    assert re.search(r"^USER 10001:10001$", made["runtime"], re.MULTILINE)
    for target in ("cpu", "cuda", "export"):
        assert made[target].startswith("runtime AS ")
        assert "USER" not in made[target]
    assert made["package"].startswith("scratch AS ")


def test_an_image_has_what_its_extra_installs() -> None:
    made = stages()
    extras = {"cpu": "'.[cpu,http,jwt,bulk]'", "cuda": "'.[gpu,http,jwt,bulk]'", "export": "'.[cpu,export]'"}
    for target, extra in extras.items():
        assert f"COPY --from=build-{target} /opt/pairwire /opt/pairwire" in made[target]
        assert extra in made[f"build-{target}"]
        assert "-c constraints.txt" in made[f"build-{target}"]


def test_the_command_serves_on_all_interfaces() -> None:
    for target in ("cpu", "cuda"):
        words = json.loads(re.findall(r"^CMD (\[.*\])", stages()[target], re.MULTILINE)[-1])
        assert words[0] == "serve"
        assert words[words.index("--host") + 1] == "0.0.0.0"


def test_the_compose_file_is_one() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_files_that_the_compose_file_mounts_are_there() -> None:
    (compose,) = documents(COMPOSE)
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    local = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(local) >= 6
    assert not [path for path in local if path != "../../models" and not (COMPOSE.parent / path).resolve().exists()]
    build = compose["services"]["pairwire"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]) == CONTAINERFILE
    assert build["target"] in stages()


def test_compose_waits_for_the_drain() -> None:
    (compose,) = documents(COMPOSE)
    server = compose["services"]["pairwire"]
    drain = float(server["environment"]["PAIRWIRE_DRAIN_TIMEOUT_S"]) + DrainConfig().drain_delay_s + LAST_WORDS_S
    assert float(server["stop_grace_period"].removesuffix("s")) > drain
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = tool("promtool")
    for name in ("compose/prometheus.yaml", "grafana/alerts.yaml"):
        (tmp_path / Path(name).name).write_bytes((DEPLOY / name).read_bytes())
    run(promtool, "check", "config", tmp_path / "prometheus.yaml")
