"""What is served where: a route is a path, a method, and a coroutine from what was asked to the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

from ...config import RequestLimits
from ...engine.results import ModelInfo
from ...rpc.method import EngineSource
from ...rpc.wire import Unread, Unreadable
from ...security.roles import ANY, INFER, NOTHING, Need
from ..roles import Role, Roles
from .answers import Answer
from .errors import Family, UnknownPath, WrongMethod
from .exchange import Exchange

T = TypeVar("T")
U = TypeVar("U")


@dataclass(slots=True)
class Asked(Generic[T]):
    """A request as a route gets it."""

    exchange: Exchange
    params: Mapping[str, str]
    """What stands in the path for its ``{names}``."""
    family: Family
    """Whose errors the caller understands; a route that serves several families sets it."""
    model: str = ""
    """Of the call, for metrics; a route sets it once it knows."""
    received: object = None
    large: bool = False
    """Whether only threads should look through it."""
    _body: Any = field(default=None, repr=False)

    @property
    def body(self) -> T:
        """What the body says."""
        return cast(T, self._body)

    @property
    def path(self) -> str:
        """Where it was sent to."""
        path: str = self.exchange.scope["path"]
        return path

    @property
    def timeout_s(self) -> float | None:
        """Seconds that are left for it; None for any number."""
        return self.exchange.time_remaining()

    def part(self, body: U) -> Asked[U]:
        """One request of several that came as one."""
        found = Asked[U](self.exchange, self.params, self.family, self.model, self.received, self.large)
        found._body = body
        return found

    async def read(self) -> None:
        """Has ``body`` there.

        Raises:
            PairwireError: it could not be read.
        """
        if isinstance(self.received, Unreadable):
            raise self.received.error
        self.large = isinstance(self.received, Unread)
        self._body = await self.received.read() if isinstance(self.received, Unread) else self.received


class Reads(Protocol):
    """Makes a request of a body's bytes."""

    @property
    def request_type(self) -> Any:
        """What the body is, for the OpenAPI document."""
        ...

    def __call__(self, raw: bytes, exchange: Exchange) -> object:
        """The request. Raises Pairwire's errors."""
        ...


Call = Callable[[Asked[Any]], Awaitable[Answer]]
"""Serves a request; raises Pairwire's errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation."""

    method: str
    path: str
    """A segment may be ``{name}``; the last one ``{name...}`` for all that is left."""
    call: Call
    family: Family
    summary: str
    """One line, for the OpenAPI document."""
    reader: Reads | None = None
    """Makes a request of the body's bytes; None where there is no body to read."""
    answer_type: Any = None
    """What the answer is, for the OpenAPI document; a tuple where it is one of several."""
    guarded: bool = True
    """Whether it goes through the gate and is counted: what asks how the server is does not."""
    need: Need = INFER
    """Roles of which a caller must have one, where callers must show keys."""

    @property
    def name(self) -> str:
        """For metrics, logs and people."""
        return self.path

    @classmethod
    def post(
        cls,
        path: str,
        call: Call,
        family: Family,
        summary: str,
        reader: Reads,
        answer_type: Any,
        *,
        need: Need = INFER,
    ) -> Route:
        """A call of the engine."""
        return cls(
            method="POST",
            path=path,
            call=call,
            family=family,
            summary=summary,
            reader=reader,
            answer_type=answer_type,
            need=need,
        )

    @classmethod
    def get(
        cls,
        path: str,
        call: Call,
        family: Family,
        summary: str,
        answer_type: Any = None,
        *,
        guarded: bool = True,
        need: Need | None = None,
    ) -> Route:
        """A question that needs no body. It needs any role, or none where it is not guarded, unless ``need`` tells."""
        return cls(
            method="GET",
            path=path,
            call=call,
            family=family,
            summary=summary,
            answer_type=answer_type,
            guarded=guarded,
            need=(ANY if guarded else NOTHING) if need is None else need,
        )


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with."""

    engine: EngineSource
    roles: Roles
    """Which model answers where none is named."""
    limits: RequestLimits

    def find(self, asked: Asked[Any], role: Role, name: str | None) -> ModelInfo:
        """The model that is meant; it is what the call is counted as.

        Raises:
            ModelNotFound, WrongModelKind, InvalidInput: as ``Roles.find``.
        """
        asked.model = name or ""
        found = self.roles.find(role, asked.model)
        asked.model = found.name
        return found

    def serves(self, role: Role) -> bool:
        """Whether some model can do that."""
        return any(role.kind in (None, each.kind) for each in self.engine().models.values())


class RouteTable:
    """Finds the route of a request. Slashes too many or at the end are forgiven, as base URLs often bring them."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError where two routes are the same."""
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[Sequence[str], dict[str, Route]]] = []
        for route in self.routes:
            methods = self._methods(route.path)
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} is routed twice")
            methods[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and the values of its path's names; HEAD goes where GET does.

        Raises:
            UnknownPath, WrongMethod: there is none.
        """
        methods, params = self._find(path)
        if methods is None:
            raise UnknownPath("path", f"nothing is served at {path[:200]!r}; /openapi.json lists what is")
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise WrongMethod(path, method, allowed(methods))
        return route, params

    def methods(self, path: str) -> str:
        """What may be done at a path, as the Allow header has it; empty where nothing is."""
        methods, _ = self._find(path)
        return allowed(methods) if methods else ""

    def _find(self, path: str) -> tuple[dict[str, Route] | None, Mapping[str, str]]:
        methods = self._exact.get(path)
        if methods is not None:
            return methods, {}
        segments = [segment for segment in path.split("/") if segment]
        methods = self._exact.get("/" + "/".join(segments))
        if methods is not None:
            return methods, {}
        for pattern, candidate in self._patterns:
            params = _matched(pattern, segments)
            if params is not None:
                return candidate, params
        return None, {}

    def _methods(self, path: str) -> dict[str, Route]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        pattern = path.strip("/").split("/")
        for known, methods in self._patterns:
            if known == pattern:
                return methods
        self._patterns.append((pattern, {}))
        return self._patterns[-1][1]


def allowed(methods: Iterable[str]) -> str:
    """``GET, HEAD, OPTIONS``."""
    known = set(methods)
    return ", ".join(sorted(known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())))


def _matched(pattern: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    params = {}
    for at, part in enumerate(pattern):
        if part.endswith("...}"):
            params[part[1:-4]] = "/".join(segments[at:])
            return params if segments[at:] else None
        if at >= len(segments):
            return None
        if part.startswith("{"):
            params[part[1:-1]] = segments[at]
        elif part != segments[at]:
            return None
    return params if len(pattern) == len(segments) else None
