"""Who calls, as far as fair shares go: the API key, or what a metadata key says, or else where the call comes from.

What a metadata key says is no proof of anything: a mesh that lets its clients name themselves must set it itself.
"""

from __future__ import annotations

from contextvars import ContextVar

from ..security.access import authenticated
from .interceptors import Context, Handler
from .method import Answer
from .wire import Received

_LONGEST = 128

_caller: ContextVar[str] = ContextVar("pairwire_caller", default="")


def caller() -> str:
    """Of the call that is being served; empty outside of one."""
    return _caller.get()


class NameCaller:
    """Finds out who calls. Each call is a task, so each has a context of its own."""

    def __init__(self, key: str) -> None:
        """``key``: the metadata key, in lower case; empty for none."""
        self._key = key

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler, during which ``caller`` tells."""

        async def named(request: Received, context: Context) -> Answer:
            _caller.set(self._name(context))
            return await handler(request, context)

        return named

    def _name(self, context: Context) -> str:
        if name := authenticated():
            return name
        if self._key:
            for key, value in context.invocation_metadata() or ():
                if key == self._key:
                    return f"key:{value if isinstance(value, str) else value.hex()}"[:_LONGEST]
        return f"peer:{host_of(context.peer())}"


def host_of(peer: str) -> str:
    """``ipv4:10.0.0.7:41234`` -> ``10.0.0.7``: connections of one host are one caller."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer[:_LONGEST]
    return rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
