"""Headers of a call -> who calls, or why not. One for every protocol; what is shown is never logged or repeated."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..config import SecurityConfig
from ..errors import ConfigInvalid, PairwireError, PermissionDenied, Unauthenticated
from .keys import Identity, KeyRing, read_keys
from .roles import NOTHING, OBSERVE, Need, Role

if TYPE_CHECKING:
    from .tokens import Tokens

logger = logging.getLogger(__name__)

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
_DOTS_OF_A_TOKEN = 2
_HOW = "send one as 'authorization: Bearer KEY' or as 'x-api-key: KEY'"

_caller: ContextVar[str] = ContextVar("pairwire_authenticated", default="")


def authenticated() -> str:
    """Who makes the call that is being served, e.g. ``api-key:search``; empty where nobody had to say."""
    return _caller.get()


class Access:
    """Decides who may call. Without a file of keys everybody may, and what they show is not looked at."""

    def __init__(self, config: SecurityConfig) -> None:
        """Raises ConfigInvalid where a file of keys cannot be read."""
        self._file = config.api_keys
        self._tokens = None if config.jwt_keys is None else _tokens(config)
        self._closes = config.asks
        self.files = tuple(path for path in (config.api_keys, config.jwt_keys) if path is not None)
        """What ``reload`` reads."""
        self._keys = KeyRing() if self._file is None else read_keys(self._file)
        self.reflection: Need | None = self._closed(config.reflection)
        """What reflection and the OpenAPI document need; None where they are off."""
        self.metrics: Need = self._closed(config.metrics_access) or NOTHING
        """What reading the metrics needs."""
        if self._file is not None:
            logger.info("%d API keys in %s", len(self._keys), self._file)

    def reload(self) -> None:
        """Reads the keys again; where that cannot be, those in force stay, and the log says why. From any thread."""
        if self._file is not None:
            try:
                self._keys = read_keys(self._file)
            except ConfigInvalid as error:
                logger.error("%s; the %d keys read before stay in force", error, len(self._keys))
            else:
                logger.info("%d API keys in %s", len(self._keys), self._file)
        if self._tokens is not None:
            try:
                self._tokens.reload()
            except ConfigInvalid as error:
                logger.error("%s; the %d keys for tokens read before stay in force", error, len(self._tokens))
            else:
                logger.info("%d keys for tokens are in force", len(self._tokens))

    def admit(self, headers: Iterable[tuple[str, str | bytes]], need: Need) -> None:
        """Lets a call in, and has ``authenticated`` say who made it.

        Raises:
            Unauthenticated: no key, several, or one that is unknown.
            PermissionDenied: a key without any of the roles.
        """
        _caller.set("")
        if not self._closes or not need:
            return
        identity = self._identify(_shown(headers))
        if not identity.roles & need:
            wanted = " or ".join(sorted(need))
            raise PermissionDenied(f"{identity.caller} has {_named(identity.roles)}; this call needs {wanted}")
        _caller.set(identity.caller)

    def refusal(self, headers: Iterable[tuple[str, str | bytes]] | None, need: Need) -> PairwireError | None:
        """As ``admit``, with the error as a value."""
        try:
            self.admit(headers or (), need)
        except PairwireError as error:
            return error
        return None

    def _identify(self, shown: bytes) -> Identity:
        if identity := self._keys.find(shown):
            return identity
        if self._tokens is not None and shown.count(b".") == _DOTS_OF_A_TOKEN:
            return self._tokens.identify(shown)
        raise Unauthenticated("the API key is not one of this server's")

    def _closed(self, choice: str) -> Need | None:
        if choice == "off":
            return None
        return OBSERVE if choice == "observe" or (choice == "auto" and self._closes) else NOTHING


def _tokens(config: SecurityConfig) -> Tokens:
    try:
        from .tokens import Tokens
    except ImportError as error:
        raise ConfigInvalid(
            f"jwt_keys: tokens need {error.name}, which is not installed; run pip install 'pairwire[jwt]', "
            "or unset jwt_keys"
        ) from None
    return Tokens(config)


def _named(roles: Iterable[Role]) -> str:
    names = sorted(roles)
    return f"the role{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else "no role"


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
