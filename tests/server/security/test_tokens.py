"""Tokens of an identity provider: what is accepted, and what is not, however it is signed."""

from __future__ import annotations

import base64
import hmac
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from pairwire.server.config import SecurityConfig
from pairwire.server.errors import ConfigInvalid, PermissionDenied, Unauthenticated
from pairwire.server.security.access import Access, authenticated
from pairwire.server.security.keys import make_key
from pairwire.server.security.roles import INFER, OBSERVE, Role
from pairwire.v1 import model_pb2
from tests.server import serving

joserfc = pytest.importorskip("joserfc", reason="needs the jwt extra")

from joserfc import jwt  # noqa: E402
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey  # noqa: E402

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})


@pytest.fixture
def config(tmp_path: Path) -> SecurityConfig:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(KeySet([RSA, EC]).as_dict(private=False)))
    return SecurityConfig(jwt_keys=path, jwt_issuer="https://id.example", jwt_audience="pairwire")


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": "https://id.example",
        "aud": ["other", "pairwire"],
        "sub": "robot",
        "exp": now + 3600,
        "nbf": now - 5,
        "roles": ["admin", "pairwire:infer"],
    }
    return {name: value for name, value in {**made, **changed}.items() if value is not None}


def token(key: Any = RSA, alg: str = "RS256", header: dict[str, Any] | None = None, **changed: Any) -> str:
    made = {"alg": alg, "kid": key.kid, **(header or {})}
    return jwt.encode(made, claims(**changed), key, algorithms=[alg])


def shown(value: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {value}")]


def test_a_token_of_the_provider_is_a_caller(config: SecurityConfig) -> None:
    access = Access(config)
    for good in (
        token(),
        token(EC, "ES256"),
        token(aud="pairwire"),
        token(roles="infer observe"),
        token(exp=int(time.time()) - 5),  # clocks differ
    ):
        assert access.refusal(shown(good), INFER) is None
        assert authenticated() == "token:robot"
    denied = access.refusal(shown(token()), OBSERVE)
    assert isinstance(denied, PermissionDenied)
    assert str(denied) == "token:robot has the role infer; this call needs observe"
    for roles in (None, [], "admin", {"infer": True}, [["infer"]], 7):
        assert isinstance(access.refusal(shown(token(roles=roles)), INFER), PermissionDenied)


def test_roles_may_lie_deep(config: SecurityConfig) -> None:
    access = Access(replace(config, jwt_roles_claim="realm_access.roles"))
    assert access.refusal(shown(token(realm_access={"roles": ["infer"]})), INFER) is None
    assert isinstance(access.refusal(shown(token(realm_access=["infer"])), INFER), PermissionDenied)


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": []},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": 32503680000},
        {"sub": None},
        {"sub": 7},
    ],
    ids=str,
)
def test_a_token_for_others_or_another_time_is_refused(changed: dict[str, Any], config: SecurityConfig) -> None:
    assert isinstance(Access(config).refusal(shown(token(**changed)), INFER), Unauthenticated)


def test_signatures_that_prove_nothing_are_refused(config: SecurityConfig) -> None:
    def unsigned(header: dict[str, Any], signature: str = "") -> str:
        parts = [
            base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in (header, claims())
        ]
        return ".".join([*parts, signature])

    head = unsigned({"alg": "HS256", "kid": "rsa"}).removesuffix(".")
    with_public_key = hmac.digest(RSA.as_pem(private=False), head.encode(), "sha256")
    good = token()
    access = Access(config)
    for bad in (
        unsigned({"alg": "none", "kid": "rsa"}),
        unsigned({"alg": "RS256", "kid": "rsa"}, "AAAA"),
        unsigned({"alg": ["RS256"], "kid": {}}, "AAAA"),
        f"{head}.{base64.urlsafe_b64encode(with_public_key).decode().rstrip('=')}",  # the public key as a secret
        token(STRANGER),  # the same kid
        token(RSA, "RS512"),  # not in the list
        token(header={"kid": "unknown"}),
        token(header={"jwk": STRANGER.as_dict(private=False)}, key=STRANGER),
        good[:-6] + "AAAAAA",
        good.replace(".", "..", 1),
        "..",
        "a.b.c",
        f"{good}{'x' * 10_000}",
    ):
        refused = access.refusal(shown(bad), INFER)
        assert isinstance(refused, Unauthenticated)
        assert bad not in str(refused)


def test_keys_of_the_provider_change(config: SecurityConfig, caplog: pytest.LogCaptureFixture) -> None:
    access = Access(config)
    assert config.jwt_keys is not None
    config.jwt_keys.write_text("{}")
    access.reload()
    assert "is no set of JSON Web Keys" in caplog.text
    assert access.refusal(shown(token()), INFER) is None
    config.jwt_keys.write_text(json.dumps(KeySet([EC]).as_dict(private=False)))
    access.reload()
    assert access.refusal(shown(token(EC, "ES256")), INFER) is None
    assert isinstance(access.refusal(shown(token()), INFER), Unauthenticated)


def test_what_cannot_work_is_a_sentence(config: SecurityConfig) -> None:
    with pytest.raises(ConfigInvalid, match="jwt_audience: tokens take jwt_keys, jwt_issuer and jwt_audience"):
        replace(config, jwt_audience="")
    with pytest.raises(ConfigInvalid, match="jwt_algorithms: 'HS256' is none of RS256"):
        replace(config, jwt_algorithms=("HS256",))
    assert config.jwt_keys is not None
    config.jwt_keys.write_text(json.dumps({"keys": [OctKey.generate_key(256).as_dict(private=True)]}))
    with pytest.raises(ConfigInvalid, match="has a symmetric key"):
        Access(config)


async def test_a_server_takes_keys_and_tokens(config: SecurityConfig, scorer_package: Path, tmp_path: Path) -> None:
    key, identity = make_key("search", [Role.INFER])
    (tmp_path / "keys").write_text(identity.to_line())
    settings = replace(serving.config(scorer_package), security=replace(config, api_keys=tmp_path / "keys"))
    async with serving.serve(settings=settings) as served:
        for good in (key, token()):
            answer = await served.models.ListModels(
                model_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {good}"),)
            )
            assert len(answer.models) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.models.ListModels(
                model_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {token(aud='x')}"),)
            )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details() == "the token is not for this server, or not now: aud is wrong or missing"
