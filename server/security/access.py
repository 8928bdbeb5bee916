"""Headers of a call -> who calls, or why not. One for every protocol; what is shown is never logged or repeated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path

from ..config import SecurityConfig
from ..errors import ConfigInvalid, PairwireError, PermissionDenied, Unauthenticated
from .keys import KeyRing, read_keys
from .roles import NOTHING, OBSERVE, Need

logger = logging.getLogger(__name__)

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
_HOW = "send one as 'authorization: Bearer KEY' or as 'x-api-key: KEY'"

_caller: ContextVar[str] = ContextVar("pairwire_authenticated", default="")


def authenticated() -> str:
    """The name of the key that the call being served was made with; empty where none was needed."""
    return _caller.get()


class Access:
    """Decides who may call. Without a file of keys everybody may, and what they show is not looked at."""

    def __init__(self, config: SecurityConfig) -> None:
        """Raises ConfigInvalid where the file of keys cannot be read."""
        self._file = config.api_keys
        self._keys = KeyRing() if self._file is None else read_keys(self._file)
        self.reflection: Need | None = self._closed(config.reflection)
        """What reflection and the OpenAPI document need; None where they are off."""
        self.metrics: Need = self._closed(config.metrics_access) or NOTHING
        """What reading the metrics needs."""
        if self._file is not None:
            logger.info("%d API keys in %s", len(self._keys), self._file)

    @property
    def files(self) -> tuple[Path, ...]:
        """What ``reload`` reads."""
        return () if self._file is None else (self._file,)

    def reload(self) -> None:
        """Reads the keys again; where that cannot be, those in force stay, and the log says why. From any thread."""
        if self._file is None:
            return
        try:
            self._keys = read_keys(self._file)
        except ConfigInvalid as error:
            logger.error("%s; the %d keys read before stay in force", error, len(self._keys))
        else:
            logger.info("%d API keys in %s", len(self._keys), self._file)

    def admit(self, headers: Iterable[tuple[str, str | bytes]], need: Need) -> None:
        """Lets a call in, and has ``authenticated`` say who made it.

        Raises:
            Unauthenticated: no key, several, or one that is unknown.
            PermissionDenied: a key without any of the roles.
        """
        if self._file is None or not need:
            return
        shown = _shown(headers)
        identity = self._keys.find(shown)
        if identity is None:
            raise Unauthenticated("the API key is not one of this server's")
        if not identity.roles & need:
            raise PermissionDenied(
                f"the key {identity.name!r} has the role {', '.join(sorted(identity.roles))}; "
                f"this call needs {' or '.join(sorted(need))}"
            )
        _caller.set(identity.name)

    def refusal(self, headers: Iterable[tuple[str, str | bytes]] | None, need: Need) -> PairwireError | None:
        """As ``admit``, with the error as a value."""
        try:
            self.admit(headers or (), need)
        except PairwireError as error:
            return error
        return None

    def _closed(self, choice: str) -> Need | None:
        if choice == "off":
            return None
        return OBSERVE if choice == "observe" or (choice == "auto" and self._file is not None) else NOTHING


def _shown(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    """The key that a call shows; `authorization` goes before `x-api-key`."""
    found: dict[str, list[bytes]] = {AUTHORIZATION: [], API_KEY: []}
    for name, value in headers:
        if name in found:
            found[name].append(value if isinstance(value, bytes) else value.encode("utf-8", errors="replace"))
    for name, values in found.items():
        if len(values) > 1:
            raise Unauthenticated(f"{len(values)} headers {name!r}; send one")
    if found[AUTHORIZATION]:
        scheme, _, key = found[AUTHORIZATION][0].strip().partition(b" ")
        if scheme.lower() == b"bearer" and key.strip():
            return key.strip()
        if not found[API_KEY]:
            raise Unauthenticated(f"the header 'authorization' has no bearer token; {_HOW}")
    if found[API_KEY] and (key := found[API_KEY][0].strip()):
        return key
    raise Unauthenticated(f"this call needs an API key; {_HOW}")
