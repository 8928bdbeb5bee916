"""The gRPC layer: wire messages in, engine calls, wire messages out; it computes nothing itself.

One call's way: wire -> interceptors -> servicer -> codec -> engine -> codec.

    scoring.py   embedding.py   model.py   one servicer a service: decode, one awaited engine call, encode
    codec.py          messages <-> plain values, with every check of a request
    texts.py          the same for the texts and token ids of a request
    first_stage.py    the same for a rerank of two stages
    zero_shot.py      the same for candidate labels
    vectors.py        vectors -> blocks of bytes
    traffic.py        what messages on their way may take of memory
    wire.py           bytes -> messages; what cannot be read becomes a value, never an exception
    fields.py         the same for large messages, in pieces, so that the event loop is not held up
    inflate.py        compressed messages, within bounds
    method.py         an RPC as the servicers declare it
    handlers.py       such a declaration -> what gRPC calls
    streams.py        calls of many requests: in order, bounded, and ended when the server drains
    interceptors.py   what every RPC goes through, one concern a class (their order: app.py)
    caller.py         who calls, as far as fair shares go
    turns.py          whose call is looked at next
    status.py         error class -> gRPC status code, the one table
    details.py        error -> message and trailing metadata
    health.py         grpc.health.v1
    reflection.py     grpc.reflection, v1 and v1alpha
    sockets.py        connections, below gRPC
    tolerant.py       handlers for both, whatever they are sent
    credentials.py    certificates as gRPC wants them
    server.py         puts it all on one grpc.aio server
"""
