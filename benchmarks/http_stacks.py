"""What an HTTP server and a JSON library cost a request: ``python -m benchmarks.http_stacks``.

Each server answers the same rerank of 32 documents with the same scores and computes nothing; what is printed is the
CPU time of its process for each request. Needs ``pip install granian starlette`` beside the ``http`` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson

from .datasets import load_pairs
from .report import print_machine, print_table, write_json

_CONNECTIONS = 8


class Rerank(msgspec.Struct):
    """The request, as msgspec reads and checks it."""

    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None


_DECODE = msgspec.json.Decoder(Rerank, strict=False).decode


def answer(body: bytes) -> bytes:
    """Scores by position; the parsing and the writing are what is measured."""
    request = _DECODE(body)
    scores = np.linspace(0, 1, len(request.documents), dtype=np.float32)
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    return orjson.dumps({"id": "1", "results": results}, option=orjson.OPT_SERIALIZE_NUMPY)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """ASGI without a framework."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    raw = answer(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


def starlette() -> Any:
    """The same as a route of Starlette, the 20th of 40."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def rerank(request: Request) -> Response:
        return Response(answer(await request.body()), media_type="application/json")

    paths = [*(f"/a{at}" for at in range(19)), "/v1/rerank", *(f"/b{at}" for at in range(20))]
    return Starlette(routes=[Route(path, rerank, methods=["POST"]) for path in paths])


async def serve_uvicorn(app: Any, port: int) -> None:
    """uvicorn, with httptools, in this loop."""
    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=port, http="httptools", log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()


async def serve_granian(app: Any, port: int) -> None:
    """Granian's server for a loop that runs already."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    await Server(app, address="127.0.0.1", port=port, interface=Interfaces.ASGINL, log_enabled=False).serve()


STACKS: dict[str, tuple[Callable[[Any, int], Awaitable[None]], Callable[[], Any]]] = {
    "uvicorn + bare ASGI": (serve_uvicorn, lambda: bare),
    "uvicorn + Starlette": (serve_uvicorn, starlette),
    "granian + bare ASGI": (serve_granian, lambda: bare),
    "granian + Starlette": (serve_granian, starlette),
}


def _serve(name: str, port: int, pipe: Connection) -> None:
    import uvloop

    serve, app = STACKS[name]

    async def main() -> None:
        task = asyncio.ensure_future(serve(app(), port))
        while await asyncio.to_thread(pipe.recv):
            pipe.send(time.process_time())
        task.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _load(port: int, body: bytes, requests: int) -> None:
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    message, left = head.encode() + body, iter(range(requests))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(message)
            answered = await reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1]) for line in answered.lower().split(b"\r\n") if line[:14] == b"content-length"
            )
            await reader.readexactly(size)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(_CONNECTIONS)))


def measure(name: str, body: bytes, requests: int) -> float:
    """Microseconds of CPU of the server's process for each request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(name, port, theirs))
    process.start()
    try:
        _wait_for(port)
        asyncio.run(_load(port, body, requests // 5))
        ours.send(True)
        before = ours.recv()
        asyncio.run(_load(port, body, requests))
        ours.send(True)
        return float(ours.recv() - before) / requests * 1e6
    finally:
        process.kill()
        process.join()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the server does not listen")


def libraries(body: bytes, repeats: int) -> Iterator[dict[str, object]]:
    """Microseconds of each JSON library, to read the request and to write an answer with 32 vectors of 384 numbers."""
    vectors = np.random.default_rng(0).standard_normal((32, 384), dtype=np.float32)
    ranks: list[dict[str, Any]] = [{"index": at, "relevance_score": float(v)} for at, v in enumerate(vectors[0, :32])]
    cases: dict[str, dict[str, Callable[[], object]]] = {
        "json": {
            "read": lambda: json.loads(body),
            "write ranks": lambda: json.dumps(ranks).encode(),
            "write vectors": lambda: json.dumps(vectors.tolist()).encode(),
        },
        "orjson": {
            "read": lambda: orjson.loads(body),
            "write ranks": lambda: orjson.dumps(ranks),
            "write vectors": lambda: orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY),
        },
        "msgspec": {
            "read": lambda: msgspec.json.decode(body),
            "read and check": lambda: _DECODE(body),
            "write ranks": lambda: msgspec.json.encode(ranks),
            "write vectors": lambda: msgspec.json.encode(vectors.tolist()),
        },
    }
    for library, works in cases.items():
        row: dict[str, object] = {"library": library}
        for name, work in works.items():
            count = repeats if "vectors" not in name else max(1, repeats // 100)
            started = time.perf_counter()
            for _ in range(count):
                work()
            row[f"{name} us"] = (time.perf_counter() - started) / count * 1e6
        yield row


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_stacks", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="of each run (default 5000)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of each server, in turns; the median counts (default 3)"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    pairs = load_pairs("builtin", None, 32)
    body = json.dumps({"query": pairs[0][0], "documents": [second for _, second in pairs], "top_n": None}).encode()
    print_machine()
    found: dict[str, list[float]] = {name: [] for name in STACKS}
    for _ in range(args.repeats):
        for name in STACKS:
            found[name].append(measure(name, body, args.requests))
    rows: list[dict[str, object]] = [
        {"server": name, "cpu_us_per_request": statistics.median(each)} for name, each in found.items()
    ]
    print_table(rows, ("server", "cpu_us_per_request"))
    table = list(libraries(body, 2000))
    print_table(table, ("library", "read us", "read and check us", "write ranks us", "write vectors us"))
    write_json(args.json, [*rows, *table])


if __name__ == "__main__":
    main()
