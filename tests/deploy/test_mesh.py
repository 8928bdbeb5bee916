"""Envoy's configuration and the policies of Istio, Envoy Gateway and KServe: valid, and all of one mind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pairwire.server.config import ConnectionConfig
from tests.deploy.custom_resources import faults
from tests.deploy.files import DEPLOY, KUBERNETES, documents
from tests.deploy.test_kubernetes import models
from tests.deploy.tools import run, tool

MESH = DEPLOY / "mesh"
(ENVOY,) = documents(MESH / "envoy.yaml")
ISTIO = {document["kind"]: document["spec"] for document in documents(MESH / "istio.yaml")}
GATEWAY = {document["kind"]: document["spec"] for document in documents(MESH / "envoy-gateway.yaml")}
HARMFUL = {"resource-exhausted", "deadline-exceeded", "internal", "5xx", "gateway-error", "retriable-4xx"}


def test_envoy_takes_its_configuration_without_a_warning() -> None:
    command = [tool("envoy"), "--mode", "validate", "-c", str(MESH / "envoy.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[info]" in done.stderr
    assert "[warning]" not in done.stderr, done.stderr


def test_istio_takes_its_policies() -> None:
    kinds = run(models(), Path(__file__).parent / "crd_models.py", MESH / "istio.yaml").split()
    assert kinds == list(ISTIO)


@pytest.mark.parametrize(
    "file",
    [MESH / "envoy-gateway.yaml", *(DEPLOY / "kserve").glob("*.yaml")],
    ids=lambda file: file.name,
)
def test_a_policy_has_only_fields_that_there_are(file: Path) -> None:
    for document in documents(file):
        assert not faults(document)


def test_a_field_that_is_not_there_is_found() -> None:
    (runtime,) = documents(DEPLOY / "kserve" / "clusterservingruntime.yaml")
    runtime["spec"]["protocolVersion"] = ["grpc-v2"]
    runtime["spec"]["multiModel"] = "false"
    assert sorted(faults(runtime)) == [
        "spec.multiModel: 'false' is no bool",
        "spec: unknown field protocolVersion",
    ]


def _retries() -> dict[str, tuple[int, set[str]]]:
    route = ENVOY["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    envoy = route["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    istio = ISTIO["VirtualService"]["http"][0]["retries"]
    gateway = GATEWAY["BackendTrafficPolicy"]["retry"]
    return {
        "envoy": (envoy["num_retries"], set(envoy["retry_on"].split(","))),
        "istio": (istio["attempts"], set(istio["retryOn"].split(","))),
        "gateway": (gateway["numRetries"], set(gateway["retryOn"]["triggers"])),
    }


@pytest.mark.parametrize("mesh", ["envoy", "istio", "gateway"])
def test_only_what_another_server_can_help_with_is_tried_again(mesh: str) -> None:
    times, causes = _retries()[mesh]
    assert times == 2
    assert {"unavailable", "cancelled", "connect-failure", "refused-stream"} <= causes
    assert not causes & HARMFUL


def _ejections() -> list[dict[str, Any]]:
    envoy = ENVOY["static_resources"]["clusters"][0]["outlier_detection"]
    istio = ISTIO["DestinationRule"]["trafficPolicy"]["outlierDetection"]
    gateway = GATEWAY["BackendTrafficPolicy"]["healthCheck"]["passive"]
    return [
        {
            "split": envoy["split_external_local_origin_errors"],
            "connections": envoy["consecutive_local_origin_failure"],
            "statuses": envoy["enforcing_consecutive_gateway_failure"] + envoy["enforcing_consecutive_5xx"],
            "most": envoy["max_ejection_percent"],
        },
        {
            "split": istio["splitExternalLocalOriginErrors"],
            "connections": istio["consecutiveLocalOriginFailures"],
            "statuses": istio["consecutiveGatewayErrors"] + istio["consecutive5xxErrors"],
            "most": istio["maxEjectionPercent"],
        },
        {
            "split": gateway["splitExternalLocalOriginErrors"],
            "connections": gateway["consecutiveLocalOriginFailures"],
            "statuses": gateway["consecutiveGatewayErrors"] + gateway["consecutive5XxErrors"],
            "most": gateway["maxEjectionPercent"],
        },
    ]


def test_connections_that_fail_eject_a_server_and_statuses_do_not() -> None:
    assert _ejections() == [{"split": True, "connections": 3, "statuses": 0, "most": 50}] * 3


def test_istio_finds_the_pods_that_it_sends_calls_to() -> None:
    (deployment,) = documents(KUBERNETES / "base" / "deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    subsets = {subset["name"]: subset["labels"] for subset in ISTIO["DestinationRule"]["subsets"]}
    weights = {route["destination"]["subset"]: route["weight"] for route in ISTIO["VirtualService"]["http"][0]["route"]}
    assert sum(weights.values()) == 100
    assert [name for name, weight in weights.items() if weight and not subsets[name].items() <= labels.items()] == []
    (service,) = documents(KUBERNETES / "base" / "service.yaml")
    assert ISTIO["DestinationRule"]["host"] == service["metadata"]["name"]
    for kind in ("PeerAuthentication", "AuthorizationPolicy"):
        assert ISTIO[kind]["selector"]["matchLabels"].items() <= labels.items()


def test_envoy_pings_less_often_than_the_server_allows() -> None:
    cluster = ENVOY["static_resources"]["clusters"][0]
    options = cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    keepalive = options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    assert float(keepalive["interval"].removesuffix("s")) > ConnectionConfig().min_ping_interval_s
