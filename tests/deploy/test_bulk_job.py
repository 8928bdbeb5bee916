"""The Indexed Job of a bulk run: as Kubernetes wants it, and as `pairwire bulk` does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.deploy.files import KUBERNETES, documents
from tests.deploy.tools import run, tool
from tests.server import toy_packages

FOLDER = KUBERNETES / "bulk"
(JOB,) = documents(FOLDER / "job.yaml")
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
COUNT = JOB["spec"]["completions"]


def test_kubernetes_takes_it() -> None:
    check = tool("kubernetes-validate")
    run(check, "--strict", "--no-warn", FOLDER / "job.yaml", FOLDER / "networkpolicy.yaml")


def test_every_part_of_it_has_the_same_names() -> None:
    (policy,) = documents(FOLDER / "networkpolicy.yaml")
    (kustomization,) = documents(FOLDER / "kustomization.yaml")
    assert policy["spec"]["podSelector"]["matchLabels"] == JOB["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert {*kustomization["resources"]} | {"kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}
    mounts = {mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {volume["name"] for volume in POD["volumes"]}


def test_its_pods_share_the_work() -> None:
    arguments = CONTAINER["args"]
    assert arguments[arguments.index("--shard") + 1] == f"/{COUNT}"
    assert JOB["spec"]["completionMode"] == "Indexed"
    assert JOB["spec"]["parallelism"] <= COUNT


def test_what_its_pods_run_scores_everything_once(tmp_path: Path) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "package")
    (tmp_path / "in").mkdir()
    rows = [{"first": f"the fox {number}", "second": "the dog"} for number in range(40)]
    (tmp_path / "in" / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    places = {"/data/in": str(tmp_path / "in"), "/data/out": str(tmp_path / "out"), "/models/demo": str(package)}
    arguments = [places.get(word, word) for word in CONTAINER["args"]]
    for index in (0, 1, COUNT - 1):
        settings = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
        command = [*processes.MAIN, *arguments, "--shard-rows", "20"]
        subprocess.run(command, env=settings, check=True, capture_output=True)
    parts = sorted((tmp_path / "out" / "data").iterdir())
    found = [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
    assert [row["first"] for row in found] == [row["first"] for row in rows]
    assert all(isinstance(row["score"], float) for row in found)


def test_a_mistake_ends_the_job_and_no_pod_tries_it_again(tmp_path: Path) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "package")
    (_, mistake) = JOB["spec"]["podFailurePolicy"]["rules"]
    assert mistake["action"] == "FailJob"
    assert mistake["onExitCodes"]["containerName"] == CONTAINER["name"]
    command = [*processes.MAIN, "bulk", "score", str(tmp_path / "none"), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--local", str(package)], capture_output=True, check=False)
    assert done.returncode in mistake["onExitCodes"]["values"], done.stderr


@pytest.mark.parametrize("name", ["runAsNonRoot", "runAsUser", "seccompProfile"])
def test_it_is_as_locked_down_as_the_server(name: str) -> None:
    (deployment,) = documents(KUBERNETES / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    assert POD["securityContext"][name] == pod["securityContext"][name]
    assert CONTAINER["securityContext"] == pod["containers"][0]["securityContext"]
