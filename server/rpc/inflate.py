"""Compressed requests, inflated within bounds.

gRPC itself inflates a message as a whole before it looks at its size: 32 MiB of gzip become 32 GiB. So it is told to
leave messages as they come (`server._options`), and they are inflated here, no further than a message may be large.

gRPC does not say which messages are compressed; they say it themselves. gzip begins with two bytes that no message
begins with. zlib ("deflate") begins with what could be a field 15 that no request here has; what then is no zlib is
read as it is.
"""

from __future__ import annotations

import zlib

from ..errors import InvalidInput

_GZIP = b"\x1f\x8b"
_ZLIB = 0x78
_ANY_HEADER = 32 + zlib.MAX_WBITS
"""For zlib: gzip or zlib, whichever it is."""
_SIZE_BYTES = 4
"""gzip ends with the size of what it holds."""


def is_compressed(raw: bytes) -> bool:
    """Whether a message begins as gzip or zlib does."""
    if raw[:2] == _GZIP:
        return True
    return len(raw) > 2 and raw[0] == _ZLIB and (raw[0] << 8 | raw[1]) % 31 == 0


def stated_size(raw: bytes, most: int) -> int:
    """Bytes that a compressed message says it holds; ``most`` where it does not say."""
    return int.from_bytes(raw[-_SIZE_BYTES:], "little") if raw[:2] == _GZIP else most


def inflate(raw: bytes, most: int) -> bytes | None:
    """What a compressed message holds; itself where it is none after all; None where that is more than ``most`` bytes.

    Raises:
        InvalidInput: it is broken.
    """
    inflater = zlib.decompressobj(_ANY_HEADER)
    try:
        found = inflater.decompress(raw, most + 1)
    except zlib.error:
        if raw[:2] != _GZIP:
            return raw
        raise InvalidInput("request", "its gzip is broken; send it again, or without compression") from None
    if len(found) > most:
        return None
    if not inflater.eof:
        raise InvalidInput("request", "its compressed bytes end too early; send it again, or without compression")
    return found
