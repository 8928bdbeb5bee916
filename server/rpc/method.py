"""An RPC as the servicers declare it: no gRPC object goes further in than the time that is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from ..engine.engine import Engine

RequestT = TypeVar("RequestT", bound=Message)

Answer: TypeAlias = Message | bytes
"""A response, or the bytes of one that is large."""

EngineSource = Callable[[], Engine]
"""The engine, which opens after the server has begun to listen. Raises NotReady before that."""


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT]):
    """One unary RPC."""

    name: str
    """As in the .proto, e.g. ``Score``."""
    request_type: type[RequestT]
    call: Callable[[RequestT, float | None, bool], Awaitable[Answer]]
    """(request, seconds that are left or None, whether it is so large that only threads should look through it) ->
    response; raises Pairwire's errors."""


Methods: TypeAlias = tuple[Method[Any], ...]
"""Methods of several request types; each fits its own ``call``, which is all that matters."""


class Servicer(Protocol):
    """A service of pairwire.v1."""

    @property
    def service(self) -> str:
        """Its full name, e.g. ``pairwire.v1.ScoringService``."""
        ...

    @property
    def methods(self) -> Methods:
        """All its RPCs."""
        ...
