"""API keys: how one is made, and the file of their hashes.

A line of the file is ``NAME ROLES sha256:HEX``; what follows a # is a comment::

    # who          may              sha256 of the key
    team-search    infer            sha256:5e88...
    prometheus     observe          sha256:9f86...

Keys are 256 random bits, so a plain hash tells nothing about them. That is why keys are made here and not chosen.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigInvalid
from .bounded import read_bounded
from .roles import Role

PREFIX = "pw_"
"""What every key begins with, so that scanners for leaked secrets can find it."""

MOST_KEY_BYTES = 512
"""Whatever is longer is no key, and not hashed."""
MOST_FILE_BYTES = 8 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LINE = "NAME ROLES sha256:HEX, as `pairwire api-key NAME` writes it"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who has shown a key or a token."""

    name: str
    roles: frozenset[Role]
    digest: bytes = field(repr=False)
    """sha256 of the key; empty of a token."""
    kind: str = "api-key"
    """What was shown: ``api-key`` or ``token``."""

    @property
    def caller(self) -> str:
        """As fair shares and messages name it: ``api-key:search``."""
        return f"{self.kind}:{self.name}"

    def to_line(self) -> str:
        """As it stands in the file."""
        return f"{self.name} {','.join(sorted(self.roles))} sha256:{self.digest.hex()}"


def make_key(name: str, roles: Iterable[Role]) -> tuple[str, Identity]:
    """A new key, which is stored nowhere, and what the server has to know of it.

    Raises:
        ConfigInvalid: the name cannot stand in a file, or there are no roles.
    """
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(
            f"name: {name[:80]!r} is no name; use at most 64 letters, digits, dots, dashes and underscores, and begin "
            "with a letter or a digit"
        )
    given = frozenset(roles)
    if not given:
        raise ConfigInvalid(f"roles: empty; give some of {', '.join(Role)}")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, Identity(name, given, _digest(key.encode()))


class KeyRing:
    """The keys of one file. Whoever measures how long ``find`` takes learns nothing about them."""

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        # Digests are looked up under a secret, so that how far one agrees with another tells nobody anything.
        self._secret = secrets.token_bytes(32)
        self._known = {self._hidden(each.digest): each for each in identities}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: bytes) -> Identity | None:
        """Whose key that is."""
        if len(key) > MOST_KEY_BYTES:
            return None
        digest = _digest(key)
        found = self._known.get(self._hidden(digest))
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def _hidden(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret, digest_size=32).digest()


def read_keys(path: Path) -> KeyRing:
    """Reads a file of keys.

    Raises:
        ConfigInvalid: it cannot be read, or a line is wrong; the sentence names it, and never what stands there.
    """
    content = read_bounded("api_keys", path, MOST_FILE_BYTES)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigInvalid(f"api_keys: {path} is not UTF-8") from None
    found: dict[bytes, Identity] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].split()
        if not text:
            continue
        identity = _identity(text, f"api_keys: {path}, line {number}")
        if identity.digest in found:
            raise ConfigInvalid(
                f"api_keys: {path}, line {number}: the same key as that of {found[identity.digest].name}"
            )
        found[identity.digest] = identity
    return KeyRing(found.values())


def _identity(fields: list[str], where: str) -> Identity:
    if len(fields) != 3:
        raise ConfigInvalid(f"{where}: {len(fields)} words; expected {_LINE}")
    name, roles, hashed = fields
    # What stands there may be a key that somebody has put into the file by mistake, so it is never shown.
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(f"{where}: the first word is no name; expected {_LINE}")
    unknown = [each for each in roles.split(",") if each not in set(Role)]
    if unknown:
        raise ConfigInvalid(f"{where}: the second word has roles that are none of {', '.join(Role)}; expected {_LINE}")
    if (digest := _HASH.fullmatch(hashed)) is None:
        raise ConfigInvalid(f"{where}: the third word is no sha256; expected {_LINE}")
    return Identity(name, frozenset(Role(each) for each in roles.split(",")), bytes.fromhex(digest[1]))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
