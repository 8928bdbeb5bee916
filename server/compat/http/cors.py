"""Pages of which other sites may call this server from a browser: none, unless an option names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_EXPOSED = b"retry-after, retry-after-ms, x-total-time, x-tokenization-time, x-queue-time, x-inference-time"
_MAX_AGE_S = "600"


class Cors:
    """The headers of the Fetch standard."""

    def __init__(self, origins: Sequence[str]) -> None:
        """``origins`` as in ``--http-cors-origins``."""
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = b"*" in self._origins

    def headers(self, request: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Those of an answer to a request with these headers."""
        if not self._origins:
            return []
        origin = request.get(b"origin", b"")
        found = [] if self._any else [(b"vary", b"origin")]
        if origin and (self._any or origin in self._origins):
            found.append((b"access-control-allow-origin", b"*" if self._any else origin))
            found.append((b"access-control-expose-headers", _EXPOSED))
        return found

    def preflight(self, methods: str) -> tuple[tuple[str, str], ...]:
        """Those that an answer to OPTIONS has beside."""
        if not self._origins:
            return ()
        return (
            ("access-control-allow-methods", methods),
            (
                "access-control-allow-headers",
                "authorization, x-api-key, content-type, content-encoding, x-request-timeout",
            ),
            ("access-control-max-age", _MAX_AGE_S),
        )
