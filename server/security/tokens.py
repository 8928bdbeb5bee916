"""Bearer tokens (JWT) that an identity provider signs; its public keys are a file (JWKS). Needs the ``jwt`` extra."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import errors, jwt
from joserfc.jwk import KeySet

from ..config import SecurityConfig
from ..errors import ConfigInvalid, Unauthenticated
from .bounded import read_bounded
from .keys import Identity
from .roles import Role

LEEWAY_S = 30
"""How far clocks may be apart."""
MOST_TOKEN_BYTES = 8 << 10
MOST_FILE_BYTES = 1 << 20

_LONGEST_NAME = 64
_PREFIX = "pairwire:"
"""Of roles that stand among those of other systems."""


class Tokens:
    """What tokens must be, and whose they are."""

    def __init__(self, config: SecurityConfig) -> None:
        """Reads the file, which must be given.

        Raises:
            ConfigInvalid: it cannot be read.
        """
        assert config.jwt_keys is not None
        self._config = config
        self._keys = _read(config.jwt_keys)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": config.jwt_issuer},
            aud={"essential": True, "value": config.jwt_audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    def __len__(self) -> int:
        return len(self._keys.keys)

    def reload(self) -> None:
        """Reads the file again. Raises ConfigInvalid, and keeps what it has."""
        assert self._config.jwt_keys is not None
        self._keys = _read(self._config.jwt_keys)

    def identify(self, shown: bytes) -> Identity:
        """Whose token that is, and what it may do.

        Raises:
            Unauthenticated: it is not a token for this server, or not now; the sentence has nothing of it.
        """
        if len(shown) > MOST_TOKEN_BYTES:
            raise Unauthenticated(f"the token is longer than {MOST_TOKEN_BYTES} bytes")
        try:
            claims = jwt.decode(shown, self._keys, algorithms=list(self._config.jwt_algorithms)).claims
            self._claims.validate(claims)
        except errors.ExpiredTokenError:
            raise Unauthenticated("the token has expired") from None
        except (errors.InvalidClaimError, errors.MissingClaimError) as error:
            claim = getattr(error, "claim", None) or "a claim"
            # Only names of claims that this server asks for: all others are the caller's.
            named = claim if claim in ("iss", "aud", "exp", "nbf", "iat", "sub") else "a claim"
            raise Unauthenticated(
                f"the token is not for this server, or not now: {named} is wrong or missing"
            ) from None
        except Exception:  # whatever a stranger sends, it is no fault of ours
            raise Unauthenticated("the token is none that a key of this server has signed") from None
        return Identity(_name(claims["sub"]), _roles(claims, self._config.jwt_roles_claim), b"", kind="token")


def _read(path: Path) -> KeySet:
    content = read_bounded("jwt_keys", path, MOST_FILE_BYTES)
    try:
        keys = KeySet.import_key_set(json.loads(content))
    except Exception as error:  # of what anybody may write into a file
        raise ConfigInvalid(f"jwt_keys: {path} is no set of JSON Web Keys ({type(error).__name__})") from None
    if any(key.key_type == "oct" for key in keys):
        raise ConfigInvalid(f"jwt_keys: {path} has a symmetric key; give public keys alone")
    return keys


def _name(subject: str) -> str:
    """Printable, and short."""
    return "".join(each if each.isprintable() else "?" for each in subject[:_LONGEST_NAME])


def _roles(claims: Mapping[str, Any], path: str) -> frozenset[Role]:
    """A list or words; a dot in the name of the claim leads into an object."""
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    names = {each.removeprefix(_PREFIX) for each in words if isinstance(each, str)}
    return frozenset(role for role in Role if role.value in names)
