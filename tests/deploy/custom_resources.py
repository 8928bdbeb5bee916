"""Fields of custom resources for whose schemas there is no package: those that our files use, and their kin.

Read from the definitions of KServe (serving.kserve.io), the Gateway API and Envoy Gateway. Strict: a field that does
not stand here is an error, so whoever uses a new one looks it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.deploy.files import Document

ANY: Any = object()
"""Checked elsewhere: what Kubernetes itself defines."""
TEXT, WHOLE, YES_NO = str, int, bool


@dataclass(frozen=True)
class OneOf:
    """A text out of some."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Many:
    """A list."""

    of: Any


_POD = {"containers": Many(ANY), "volumes": Many(ANY), "nodeSelector": ANY, "tolerations": Many(ANY), "affinity": ANY}
_FORMAT = {"name": TEXT, "version": TEXT, "autoSelect": YES_NO, "priority": WHOLE}
_RUNTIME = {
    **_POD,
    "annotations": ANY,
    "labels": ANY,
    "supportedModelFormats": Many(_FORMAT),
    "protocolVersions": Many(OneOf(("v1", "v2", "grpc-v1", "grpc-v2"))),
    "multiModel": YES_NO,
    "disabled": YES_NO,
}
_PREDICTOR = {
    "minReplicas": WHOLE,
    "maxReplicas": WHOLE,
    "scaleTarget": WHOLE,
    "scaleMetric": OneOf(("cpu", "memory", "concurrency", "rps")),
    "timeout": WHOLE,
    "canaryTrafficPercent": WHOLE,
    "labels": ANY,
    "annotations": ANY,
    "terminationGracePeriodSeconds": WHOLE,
    "serviceAccountName": TEXT,
    "model": {
        "modelFormat": {"name": TEXT, "version": TEXT},
        "runtime": TEXT,
        "protocolVersion": OneOf(("v1", "v2", "grpc-v1", "grpc-v2")),
        "storageUri": TEXT,
        "args": Many(TEXT),
        "env": Many(ANY),
        "resources": ANY,
    },
}
_REFERENCE = {"group": TEXT, "kind": TEXT, "name": TEXT, "namespace": TEXT}
_TRIGGERS = OneOf(
    (
        *("5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "refused-stream"),
        *("retriable-status-codes", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
    )
)
SCHEMAS: Mapping[tuple[str, str], Any] = {
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"): _RUNTIME,
    ("serving.kserve.io/v1beta1", "InferenceService"): {"predictor": _PREDICTOR},
    ("gateway.networking.k8s.io/v1", "Gateway"): {
        "gatewayClassName": TEXT,
        "listeners": Many(
            {
                "name": TEXT,
                "hostname": TEXT,
                "protocol": OneOf(("HTTP", "HTTPS", "TLS", "TCP", "UDP")),
                "port": WHOLE,
                "tls": {"mode": OneOf(("Terminate", "Passthrough")), "certificateRefs": Many(_REFERENCE)},
                "allowedRoutes": ANY,
            }
        ),
    },
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): {
        "parentRefs": Many({**_REFERENCE, "sectionName": TEXT, "port": WHOLE}),
        "hostnames": Many(TEXT),
        "rules": Many(
            {
                "name": TEXT,
                "matches": Many(
                    {
                        "method": {
                            "type": OneOf(("Exact", "RegularExpression")),
                            "service": TEXT,
                            "method": TEXT,
                        },
                        "headers": ANY,
                    }
                ),
                "backendRefs": Many({**_REFERENCE, "port": WHOLE, "weight": WHOLE}),
            }
        ),
    },
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): {
        "targetRefs": Many({**_REFERENCE, "sectionName": TEXT}),
        "loadBalancer": {"type": OneOf(("ConsistentHash", "LeastRequest", "Random", "RoundRobin")), "slowStart": ANY},
        "retry": {
            "numRetries": WHOLE,
            "retryOn": {"triggers": Many(_TRIGGERS), "httpStatusCodes": Many(WHOLE)},
            "perRetry": {"timeout": TEXT, "backOff": {"baseInterval": TEXT, "maxInterval": TEXT}},
        },
        "circuitBreaker": dict.fromkeys(
            (
                "maxConnections",
                "maxPendingRequests",
                "maxParallelRequests",
                "maxParallelRetries",
                "maxRequestsPerConnection",
            ),
            WHOLE,
        ),
        "healthCheck": {
            "active": {
                "type": OneOf(("HTTP", "TCP", "GRPC")),
                "timeout": TEXT,
                "interval": TEXT,
                "unhealthyThreshold": WHOLE,
                "healthyThreshold": WHOLE,
                "grpc": {"service": TEXT},
            },
            "passive": {
                "splitExternalLocalOriginErrors": YES_NO,
                "interval": TEXT,
                "consecutiveLocalOriginFailures": WHOLE,
                "consecutiveGatewayErrors": WHOLE,
                "consecutive5XxErrors": WHOLE,
                "baseEjectionTime": TEXT,
                "maxEjectionPercent": WHOLE,
            },
        },
        "timeout": {
            "tcp": {"connectTimeout": TEXT},
            "http": {"connectionIdleTimeout": TEXT, "maxConnectionDuration": TEXT, "requestTimeout": TEXT},
        },
    },
    ("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy"): {
        "targetRefs": Many({**_REFERENCE, "sectionName": TEXT}),
        "connection": {"bufferLimit": TEXT, "connectionLimit": ANY},
        "http2": {"initialStreamWindowSize": TEXT, "initialConnectionWindowSize": TEXT, "maxConcurrentStreams": WHOLE},
        "timeout": {"http": {"requestReceivedTimeout": TEXT, "idleTimeout": TEXT}},
    },
}


def faults(document: Document) -> list[str]:
    """What is not as the schema has it."""
    name = (document["apiVersion"], document["kind"])
    if name not in SCHEMAS:
        return [f"no schema of {name}"]
    extra = document.keys() - {"apiVersion", "kind", "metadata", "spec"}
    return [f"{name[1]}: unknown {sorted(extra)}"] * bool(extra) + list(
        _faults(document["spec"], SCHEMAS[name], "spec")
    )


def _faults(value: object, schema: Any, where: str) -> Iterator[str]:
    if schema is ANY:
        return
    if isinstance(schema, Many):
        if not isinstance(value, list):
            yield f"{where}: not a list"
            return
        for at, inner in enumerate(value):
            yield from _faults(inner, schema.of, f"{where}[{at}]")
    elif isinstance(schema, OneOf):
        if value not in schema.values:
            yield f"{where}: {value!r} is none of {schema.values}"
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{where}: not an object"
            return
        for key, inner in value.items():
            if key not in schema:
                yield f"{where}: unknown field {key}"
            else:
                yield from _faults(inner, schema[key], f"{where}.{key}")
    elif type(value) is not schema:
        yield f"{where}: {value!r} is no {schema.__name__}"
