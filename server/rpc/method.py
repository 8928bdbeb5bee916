"""An RPC as the servicers declare it: no gRPC object goes further in than the time that is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from ..engine.engine import Engine
from .wire import ReadLarge

RequestT = TypeVar("RequestT", bound=Message)

Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Headed:
    """A response with initial metadata before it."""

    response: Message | bytes
    headers: Headers


Answer: TypeAlias = Message | bytes | Headed
"""A response, or the bytes of one that is large."""


@dataclass(frozen=True, slots=True)
class EachAnswered:
    """Many requests on one call; each is answered, in their order."""

    explain: Callable[[Message | None, str, Headers], Answer | None] = lambda request, sentence, headers: None
    """(request, what is wrong with it, metadata of the call) -> an answer that says so; None ends the call instead."""


@dataclass(frozen=True, slots=True)
class AllTogether:
    """Many messages on one call, which are one request."""

    message_type: type[Message]
    join: Callable[[Sequence[Any]], Message]
    """The messages, at least one -> the request."""


EngineSource = Callable[[], Engine]
"""The engine, which opens after the server has begun to listen. Raises NotReady before that."""


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT]):
    """One RPC, of one request unless ``stream`` says otherwise."""

    name: str
    """As in the .proto, e.g. ``Score``."""
    request_type: type[RequestT]
    call: Callable[[RequestT, float | None, bool], Awaitable[Answer]]
    """(request, seconds that are left or None, whether it is so large that only threads should look through it) ->
    response; raises Pairwire's errors."""
    label: str = ""
    """What metrics and logs call it, where that is not ``name``: two services may have methods of one name."""
    stream: EachAnswered | AllTogether | None = None
    probe: bool = False
    """Whether it is answered also while the server loads its models or drains."""
    read_large: ReadLarge | None = None
    """How large requests are read, where that is not ``wire.read_in_pieces``."""

    @property
    def shown(self) -> str:
        """What metrics and logs call it."""
        return self.label or self.name


Methods: TypeAlias = tuple[Method[Any], ...]
"""Methods of several request types; each fits its own ``call``, which is all that matters."""


class Servicer(Protocol):
    """A service."""

    @property
    def service(self) -> str:
        """Its full name, e.g. ``pairwire.v1.ScoringService``."""
        ...

    @property
    def methods(self) -> Methods:
        """All its RPCs."""
        ...
