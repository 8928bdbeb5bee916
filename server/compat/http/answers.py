"""What a route gives back, and its JSON: float32 in the shortest form that reads back as the same number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ...engine.off_loop import off_loop
from ...engine.results import Timing

JSON = "application/json"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    body: bytes = b""
    status: int = 200
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    """Beside those of length, type and origin."""


def encode(value: Any) -> bytes:
    """JSON of dicts, lists, strings, numbers, and arrays of numpy."""
    return orjson.dumps(value, option=_OPTIONS)


async def json_answer(value: Any, *, large: bool = False, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """The answer that says ``value``; it is written on a thread where it is ``large``."""
    return Answer(await off_loop(large, encode, value), headers=headers)


def server_timing(timing: Timing) -> tuple[str, str]:
    """Where a call's time went, in milliseconds, as browsers read it (https://www.w3.org/TR/server-timing)."""
    stages = (("queue", timing.queue_s), ("tokenize", timing.tokenize_s), ("compute", timing.compute_s))
    return "server-timing", ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in stages)
