"""What operators may ask of the models of a server, by any protocol."""

from __future__ import annotations

from ..engine.results import ModelInfo
from ..errors import Unsupported
from .repository import Listed, Repository


class Control:
    """Loads and unloads where that is allowed."""

    def __init__(self, repository: Repository | None, *, allowed: bool) -> None:
        """``repository`` is None where the server has none."""
        self._repository = repository
        self._allowed = allowed

    async def load(self, model: str, version: str = "") -> tuple[ModelInfo, bool]:
        """As ``Repository.load``; Unsupported where it is not allowed."""
        return await self._for_operators().load(model, version)

    async def unload(self, model: str) -> None:
        """As ``Repository.unload``; Unsupported where it is not allowed."""
        await self._for_operators().unload(model)

    def index(self) -> list[Listed] | None:
        """As ``Repository.index``; None where there is no repository."""
        return None if self._repository is None else self._repository.index()

    def _for_operators(self) -> Repository:
        """The one place where all calls pass that change what is served: here a caller's role belongs.

        Raises:
            Unsupported: nobody may.
        """
        if self._repository is None:
            raise Unsupported(
                "models are loaded when the server starts, and stay; start it with --repository DIR "
                "--allow-model-control true to load and unload models while it serves"
            )
        if not self._allowed:
            raise Unsupported("loading and unloading by calls is off; start the server with --allow-model-control true")
        return self._repository
