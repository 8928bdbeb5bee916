"""Typed clients for Pairwire servers: numpy in and out, retries, several servers, one tree of errors.

    sync.py      Client, blocking               aio.py      AsyncClient, its asyncio twin
    sync_connection.py, aio_connection.py       how they send requests and wait for a server
    calls.py     a call before it is sent: requests, decoding, merging
    inputs.py    checks what the caller gives   requests.py cuts it into requests   window.py how many at once
    given.py     what people pass -> texts and pairs
    first_stage.py  retrieve, then rerank       token_ids.py  texts that are tokenised
    zero_shot.py    labels that the caller makes up
    codec.py     answers -> results             results.py  what is returned, and how parts become one
    channel.py   addresses and options -> gRPC  options.py  the options      errors.py  the errors
    proxy.py     which connections go through an HTTP proxy
    cross_encoder.py, sentence_encoder.py, sparse_encoder.py   as in sentence-transformers
    drop_in.py   what those three share

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
from .first_stage import FirstStage
from .options import ClientOptions, Keepalive, RetryPolicy, SplitLimits, TlsFiles
from .results import (
    EmbedResult,
    FirstStageReport,
    Model,
    ModelDetails,
    RankedDocument,
    RerankResult,
    ScoreResult,
    SparseEmbedResult,
    Timing,
    Usage,
)
from .sentence_encoder import SentenceEncoder
from .sparse_encoder import SparseEncoder
from .sync import Client
from .token_ids import TokenIds
from .zero_shot import Classification, ClassifyResult

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Classification",
    "ClassifyResult",
    "Client",
    "ClientError",
    "ClientOptions",
    "CrossEncoder",
    "DeadlineExceeded",
    "EmbedResult",
    "FieldViolation",
    "FirstStage",
    "FirstStageReport",
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
    "SparseEmbedResult",
    "SparseEncoder",
    "SplitLimits",
    "Timing",
    "TlsFiles",
    "TokenIds",
    "Unavailable",
    "Usage",
    "WrongModelKind",
]
