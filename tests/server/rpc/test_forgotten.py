"""What a call that failed held of memory is free when it has ended."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import grpc
import pytest

from pairwire.v1 import scoring_pb2
from tests.server import serving


async def test_what_was_refused_is_not_kept_until_garbage_is_collected(scorer_package: Path) -> None:
    """GRPC keeps exceptions in rings, with the frames that they came through and the texts in those."""

    def texts() -> int:
        return sum(type(each) is list and len(each) == 321 for each in gc.get_objects())

    documents = [f"flour {number}" for number in range(321)]
    async with serving.serve(scorer_package) as served:
        gc.collect()
        gc.disable()
        try:
            before = texts()
            for refused in (
                scoring_pb2.RerankRequest(query="q", documents=documents, model="unknown"),
                scoring_pb2.RerankRequest(query="q", documents=documents, max_length=100_000),
            ):
                for timeout in (60, 0.001):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await served.scoring.Rerank(refused, timeout=timeout)
            call = served.scoring.Rerank(scoring_pb2.RerankRequest(query="q", documents=documents), timeout=0.02)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call
            await serving.eventually(lambda: served.application.traffic.inside == 0)
            await serving.eventually(lambda: texts() == before)
        finally:
            gc.enable()
