"""Typed clients for Pairwire servers: numpy in and out, retries, several servers, one tree of errors.

    sync.py      Client, blocking               aio.py      AsyncClient, its asyncio twin
    inputs.py    checks what the caller gives   requests.py cuts it into requests
    codec.py     answers -> results             results.py  what is returned, and how parts become one
    channel.py   addresses and options -> gRPC  options.py  the options      errors.py  the errors
    cross_encoder.py, sentence_encoder.py       the same interface as sentence-transformers

It needs grpcio, protobuf and numpy, and neither the server's nor the exporter's packages.
"""

from .aio import AsyncClient
from .cross_encoder import CrossEncoder
from .errors import (
    Cancelled,
    ClientError,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    ModelNotFound,
    NotPermitted,
    NotSupported,
    Overloaded,
    ServerFault,
    Unavailable,
    WrongModelKind,
)
from .options import ClientOptions, Keepalive, RetryPolicy, SplitLimits, TlsFiles
from .results import EmbedResult, Model, ModelDetails, RankedDocument, RerankResult, ScoreResult, Timing, Usage
from .sentence_encoder import SentenceEncoder
from .sync import Client

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "ClientError",
    "ClientOptions",
    "CrossEncoder",
    "DeadlineExceeded",
    "EmbedResult",
    "FieldViolation",
    "InvalidInput",
    "Keepalive",
    "Model",
    "ModelDetails",
    "ModelNotFound",
    "NotPermitted",
    "NotSupported",
    "Overloaded",
    "RankedDocument",
    "RerankResult",
    "RetryPolicy",
    "ScoreResult",
    "SentenceEncoder",
    "ServerFault",
    "SplitLimits",
    "Timing",
    "TlsFiles",
    "Unavailable",
    "Usage",
    "WrongModelKind",
]
