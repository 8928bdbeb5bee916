"""A server with API keys, and the keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pairwire.server.config import SecurityConfig
from pairwire.server.security.keys import make_key
from pairwire.server.security.roles import Role
from tests.server import serving
from tests.server.compat.http.running import Running, running


@dataclass(frozen=True)
class Guarded:
    """A server that asks for keys."""

    running: Running
    file: Path
    keys: dict[str, str]
    """Role -> a key that has only this one; ``unknown`` is of no server."""

    @property
    def metrics_url(self) -> str:
        """Of the metrics port."""
        return f"http://127.0.0.1:{self.running.application.metrics_port}/metrics"


@pytest.fixture(scope="module")
def guarded(
    scorer_package: Path, embedder_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """Of ``scorer`` and ``embedder``, over gRPC and HTTP."""
    made = {role.value: make_key(f"team-{role}", [role]) for role in Role}
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("".join(f"{identity.to_line()}\n" for _, identity in made.values()))
    settings = serving.config(scorer_package, embedder_package, http_port=0, metrics_port=0)
    with running(settings=replace(settings, security=SecurityConfig(api_keys=file))) as server:
        keys = {role: key for role, (key, _) in made.items()}
        yield Guarded(server, file, {**keys, "unknown": make_key("x", [Role.INFER])[0]})
