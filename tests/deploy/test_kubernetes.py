"""The manifests: as Kubernetes wants them, as they fit together, and as the server behaves."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pairwire.server.config import ServerConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.options import options_of
from pairwire.server.serving import LAST_WORDS_S
from tests.deploy.files import DEPLOY, KUBERNETES, OVERLAYS, Document, documents
from tests.deploy.tools import TOOLS, find, run, tool

BUILTIN = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2"}
DEFAULTS = {option.variable: option.default for option in options_of(ServerConfig)}
overlays = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)


def rendered(overlay: Path) -> list[Document]:
    """What kustomize makes of an overlay."""
    if find("kustomize") is None and find("kubectl") is None:
        pytest.skip("neither kustomize nor kubectl is there")
    return copy.deepcopy(_rendered(overlay))


@functools.cache
def _rendered(overlay: Path) -> list[Document]:
    kustomize = find("kustomize")
    command = [kustomize, "build"] if kustomize else [str(find("kubectl")), "kustomize"]
    return list(yaml.safe_load_all(run(*command, overlay)))


def only(documents: list[Document], kind: str, name: str = "pairwire") -> Document:
    """The one of that kind and name."""
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def pod(documents: list[Document]) -> dict[str, Any]:
    """The Deployment's pod."""
    return dict(only(documents, "Deployment")["spec"]["template"]["spec"])


def server(documents: list[Document]) -> dict[str, Any]:
    """The container that serves."""
    (container,) = pod(documents)["containers"]
    return dict(container)


def options(documents: list[Document]) -> dict[str, float]:
    """Every option in seconds that the server gets, or its default."""
    (given,) = (each["data"] for each in documents if each["kind"] == "ConfigMap")
    return {
        name: float(given.get(name, default))
        for name, default in DEFAULTS.items()
        if name.endswith("_S") and default != ()
    }


def test_kubernetes_takes_what_every_overlay_makes(tmp_path: Path) -> None:
    made = everything()
    check, files = tool("kubernetes-validate"), []
    for at, document in enumerate(each for each in made if each["apiVersion"] in BUILTIN):
        files.append(tmp_path / f"{at}.yaml")
        files[-1].write_text(yaml.safe_dump(document), encoding="utf-8")
    assert len(files) > 10
    run(check, "--strict", "--no-warn", *files)


def test_operators_take_what_every_overlay_makes(tmp_path: Path) -> None:
    python, file = models(), tmp_path / "all.yaml"
    custom = [document for document in everything() if document["apiVersion"] not in BUILTIN]
    file.write_text(yaml.safe_dump_all(custom), encoding="utf-8")
    kinds = run(python, Path(__file__).parent / "crd_models.py", file).split()
    assert sorted(kinds) == sorted(document["kind"] for document in custom)
    assert {*kinds} == {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


def everything() -> list[Document]:
    """What kustomize makes of all overlays, each document once."""
    made = [document for overlay in OVERLAYS for document in rendered(overlay)]
    return list({yaml.safe_dump(document): document for document in made}.values())


def models() -> str:
    """A Python that has the models of custom resources."""
    if find("cloudcoil-model-codegen") is None:
        pytest.skip(f"no models of custom resources; run `make test-deploy`, which sets {TOOLS}")
    return tool("python")


@overlays
def test_selectors_find_the_pods_and_nothing_else_names_them(overlay: Path) -> None:
    made = rendered(overlay)
    deployment = only(made, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        only(made, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(made, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(made, "Service")["spec"]["selector"],
        only(made, "Service", "pairwire-headless")["spec"]["selector"],
        pod(made)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


@overlays
def test_clients_need_one_label_and_nobody_else_gets_in(overlay: Path) -> None:
    policy = only(rendered(overlay), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    clients, prometheus = policy["ingress"]
    assert clients["from"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"pairwire-client": "true"}}}]
    assert [port["port"] for port in clients["ports"]] == ["grpc"]
    assert [port["port"] for port in prometheus["ports"]] == ["metrics"]
    assert all(rule["ports"] for rule in policy.get("egress", []))


@overlays
def test_ports_have_the_names_by_which_they_are_called(overlay: Path) -> None:
    made = rendered(overlay)
    names = {port["name"]: port["containerPort"] for port in server(made)["ports"]}
    for service in (each for each in made if each["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]
    assert only(made, "Service", "pairwire-headless")["spec"]["clusterIP"] == "None"
    assert {probe["grpc"]["port"] for name, probe in server(made).items() if name.endswith("Probe")} == {names["grpc"]}


@overlays
def test_one_service_is_scraped_and_so_every_pod_once(overlay: Path) -> None:
    made = rendered(overlay)
    monitors = [each for each in made if each["kind"] == "ServiceMonitor"]
    for monitor in monitors:
        selector = monitor["spec"]["selector"]
        absent = {each["key"] for each in selector["matchExpressions"] if each["operator"] == "DoesNotExist"}
        scraped = [
            each["metadata"]["name"]
            for each in made
            if each["kind"] == "Service"
            and selector["matchLabels"].items() <= each["metadata"]["labels"].items()
            and not absent & each["metadata"]["labels"].keys()
        ]
        assert scraped == ["pairwire"]
        assert monitor["spec"]["endpoints"][0]["port"] in {
            port["name"] for port in only(made, "Service")["spec"]["ports"]
        }


def _containers(made: list[Document]) -> Iterator[dict[str, Any]]:
    for document in made:
        if document["kind"] == "Deployment":
            spec = document["spec"]["template"]["spec"]
            yield from [*spec["containers"], *spec.get("initContainers", [])]


@overlays
def test_every_container_is_locked_down(overlay: Path) -> None:
    made = rendered(overlay)
    assert pod(made)["securityContext"]["runAsNonRoot"] is True
    assert pod(made)["securityContext"]["runAsUser"] >= 10_000
    assert pod(made)["automountServiceAccountToken"] is False
    for container in _containers(made):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


@overlays
def test_every_mount_is_a_volume_and_models_are_read_only(overlay: Path) -> None:
    made = rendered(overlay)
    volumes = {volume["name"] for volume in pod(made)["volumes"]}
    for container in _containers(made):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    models = [mount for mount in server(made)["volumeMounts"] if mount["mountPath"].startswith("/models")]
    assert models
    assert all(mount["readOnly"] for mount in models)
    package = server(made)["args"][1]
    assert any(package == mount["mountPath"] or package.startswith(mount["mountPath"] + "/") for mount in models)


@overlays
def test_a_whole_number_of_cpus_is_the_limit(overlay: Path) -> None:
    for container in _containers(rendered(overlay)):
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert int(resources["limits"]["cpu"]) >= 1


@overlays
def test_a_pod_that_ends_has_the_time_that_its_drain_may_take(overlay: Path) -> None:
    made = rendered(overlay)
    given = options(made)
    drain = given["PAIRWIRE_DRAIN_DELAY_S"] + given["PAIRWIRE_DRAIN_TIMEOUT_S"] + LAST_WORDS_S
    assert pod(made)["terminationGracePeriodSeconds"] > drain
    assert given["PAIRWIRE_DRAIN_DELAY_S"] >= 5
    rolling = only(made, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}


@overlays
def test_a_hang_is_ended_by_the_server_before_the_liveness_probe_does(overlay: Path) -> None:
    probe = server(rendered(overlay))["livenessProbe"]
    patience = probe["periodSeconds"] * (probe["failureThreshold"] - 1) + probe["timeoutSeconds"]
    assert patience > EngineConfig().hang_timeout_s + LAST_WORDS_S


@overlays
def test_what_scales_has_the_replicas_for_itself(overlay: Path) -> None:
    made = rendered(overlay)
    scalers = [each for each in made if each["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
    assert len(scalers) <= 1
    assert ("replicas" in only(made, "Deployment")["spec"]) is not bool(scalers)
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] == "pairwire"


def test_the_adapter_offers_what_the_autoscaler_asks_for() -> None:
    folder = KUBERNETES / "components" / "hpa"
    (scaler,), (values,) = (
        documents(folder / f"{name}.yaml") for name in ("horizontalpodautoscaler", "prometheus-adapter")
    )
    offered = {
        rule["name"]["as"] if "name" in rule else rule["seriesQuery"].partition("{")[0]
        for rule in values["rules"]["custom"]
    }
    assert {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]} == offered


def test_the_autoscalers_agree() -> None:
    folder = KUBERNETES / "components"
    (keda,) = documents(folder / "keda" / "scaledobject.yaml")
    (hpa,) = documents(folder / "hpa" / "horizontalpodautoscaler.yaml")
    assert [trigger["metadata"]["threshold"] for trigger in keda["spec"]["triggers"]] == ["0.7", "0.5"]
    assert [m["pods"]["target"]["averageValue"] for m in hpa["spec"]["metrics"]] == ["700m", "500m"]
    assert keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["spec"]["behavior"]


def test_kserve_runs_the_same_container() -> None:
    (runtime,) = documents(DEPLOY / "kserve" / "clusterservingruntime.yaml")
    (container,) = runtime["spec"]["containers"]
    (ours,) = documents(KUBERNETES / "base" / "deployment.yaml")
    (base,) = ours["spec"]["template"]["spec"]["containers"]
    assert container["image"] == base["image"]
    assert container["readinessProbe"] == base["readinessProbe"]
    assert container["livenessProbe"]["grpc"] == base["livenessProbe"]["grpc"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    drain = float(variables["PAIRWIRE_DRAIN_DELAY_S"]) + float(variables["PAIRWIRE_DRAIN_TIMEOUT_S"]) + LAST_WORDS_S
    for service in documents(DEPLOY / "kserve" / "inferenceservice.yaml"):
        predictor = service["spec"]["predictor"]
        assert predictor["terminationGracePeriodSeconds"] > drain
        assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
        assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
        formats = {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
        assert predictor["model"]["modelFormat"]["name"] in formats


def test_a_pod_with_kserves_container_is_one_for_kubernetes(tmp_path: Path) -> None:
    check = tool("kubernetes-validate")
    (runtime,) = documents(DEPLOY / "kserve" / "clusterservingruntime.yaml")
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "it"},
        "spec": {"containers": runtime["spec"]["containers"]},
    }
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(made), encoding="utf-8")
    run(check, "--strict", "--no-warn", file)
