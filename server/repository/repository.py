"""Loads, exchanges and unloads the models of a directory, and remembers what was refused, and why.

Only one model is loaded at a time; of one model, only one thing is done at a time. What has begun goes on to its end,
also where who asked for it has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from ..engine.config import EngineConfig
from ..engine.engine import Engine
from ..engine.models.loading import Source
from ..engine.models.model import Model, content_of
from ..engine.results import ModelInfo
from ..engine.watchdog import Watchdog
from ..errors import ModelNotFound, ModelRefused, NotReady, PairwireError, RuntimeMissing, StartupError
from .layout import Version, scan
from .opening import content, open_behind, open_version

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Change(Enum):
    """What became of an attempt."""

    LOADED = "loaded"
    EXCHANGED = "exchanged"
    UNCHANGED = "unchanged"
    UNLOADED = "unloaded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Listed:
    """A version in the list."""

    model: str
    version: str
    serves: bool
    reason: str
    """Why it does not serve; empty where it does."""


class Repository:
    """Belongs to one event loop."""

    def __init__(
        self,
        root: Path,
        config: EngineConfig,
        *,
        on_change: Callable[[str, Change], None] = lambda model, change: None,
    ) -> None:
        """``on_change`` hears of every attempt, by the name of the model. Nothing is read yet."""
        self.root = root
        self._config = config
        self._on_change = on_change
        self._engine: Engine | None = None
        self._ours: set[str] = set()
        self._refused: dict[tuple[str, str], str] = {}  # model, version -> why
        self._loading = asyncio.Lock()
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """Why (model, version) was not loaded when it was last tried."""
        return self._refused

    def first(self) -> list[Source]:
        """What is loaded when the server starts: of each model the newest version that can be.

        Raises:
            ConfigInvalid: the directory cannot be read.
        """
        return [_Newest(self, list(versions)) for versions in scan(self.root).values()]

    def attach(self, engine: Engine) -> None:
        """The engine has loaded what ``first`` gave."""
        self._engine = engine

    async def load(self, model: str, version: str = "") -> tuple[ModelInfo, bool]:
        """Serves a version, the newest unless it is said; what serves then, and whether that is new.

        Raises:
            ModelNotFound: the directory has no such model or version.
            ModelRefused: it cannot be loaded, or not under this name; what served before goes on.
            NotReady: the server is starting or ends.
        """
        return await self._to_its_end(self._load(model, version))

    async def unload(self, model: str) -> None:
        """Serves a model no longer; returns when what it had accepted is answered.

        Raises:
            ModelNotFound: it does not serve.
            ModelRefused: it is none of this directory.
            NotReady: the server is starting.
        """
        await self._to_its_end(self._unload(model))

    def index(self) -> list[Listed]:
        """Every version of every model, and what serves though it is not there any more; by name, the newest first."""
        engine, found = self._opened(), []
        there = scan(self.root)
        for model in sorted({*there, *engine.models}):
            info = engine.models.get(model)
            serving = "" if info is None else info.version
            versions = [each.version for each in there.get(model, ())]
            if serving and serving not in versions:
                versions.append(serving)
            for version in versions:
                reason = "" if version == serving else self._refused.get((model, version), "not loaded")
                found.append(Listed(model, version, version == serving, reason))
        return found

    async def close(self, limit_s: float) -> None:
        """Waits for what is being done, which the draining engine will refuse; not longer than ``limit_s``."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=limit_s)

    def load_first(self, versions: list[Version], watchdog: Watchdog) -> Model | None:
        """The first of these that can be loaded. Blocks; called while nothing is served.

        Raises:
            RuntimeMissing: no package can be.
        """
        for version in versions:
            try:
                model = open_version(version, self._config, watchdog)
            except RuntimeMissing:
                raise
            except StartupError as error:
                self._note_refusal(version, error)
            else:
                self._ours.add(version.model)
                self._on_change(version.model, Change.LOADED)
                return model
        return None

    async def _load(self, model: str, version: str) -> tuple[ModelInfo, bool]:
        engine = self._opened()
        async with self._changing[model]:
            wanted = await asyncio.to_thread(self._find, model, version)
            known = engine.models.get(model)
            if known is not None and model not in self._ours:
                raise ModelRefused(f"model {model!r} was given to the server as a package, and stays; rename the other")
            try:
                if known is not None and await self._serves_already(known, wanted):
                    self._refused.pop((model, wanted.version), None)
                    self._on_change(model, Change.UNCHANGED)
                    return known, False
                await self._exchange(engine, wanted)
            except (StartupError, ModelRefused) as error:
                self._note_refusal(wanted, error)
                goes_on = "" if known is None else f"; version {known.version} goes on"
                raise ModelRefused(f"model {model!r}, version {wanted.version}: {error}{goes_on}") from error
            self._refused.pop((model, wanted.version), None)
            self._on_change(model, Change.LOADED if known is None else Change.EXCHANGED)
            return engine.models[model], True

    async def _exchange(self, engine: Engine, wanted: Version) -> None:
        async with self._loading:
            if engine.statistics().draining:
                raise NotReady("the server is draining and loads no models; try another server")
            workers = engine.statistics().workers
            model = await open_behind(wanted, self._config, engine.watchdog, workers)
        self._ours.add(model.name)
        try:
            await engine.install(model)
        except PairwireError:
            await asyncio.to_thread(model.runtime.close)
            raise

    async def _unload(self, model: str) -> None:
        engine = self._opened()
        async with self._changing[model]:
            if model in engine.models and model not in self._ours:
                raise ModelRefused(
                    f"model {model!r} was given to the server as a package, and stays until the server ends"
                )
            await engine.remove(model)
            self._ours.discard(model)
            logger.info("unloaded model %r", model)
            self._on_change(model, Change.UNLOADED)

    async def _serves_already(self, known: ModelInfo, wanted: Version) -> bool:
        return await asyncio.to_thread(content, wanted, self._config) == content_of(known.manifest, known.variant)

    def _find(self, model: str, version: str) -> Version:
        there = scan(self.root)
        if model not in there:
            names = ", ".join(map(repr, there)) or "none at all"
            raise ModelNotFound(f"no model {model!r} in the repository; there is {names}")
        for each in there[model]:
            if version in ("", each.version):
                return each
        versions = ", ".join(each.version for each in there[model])
        raise ModelNotFound(f"model {model!r} has no version {version!r} in the repository; there is {versions}")

    def _note_refusal(self, version: Version, error: Exception) -> None:
        self._refused[version.model, version.version] = str(error)
        logger.error("model %r, version %s, is not loaded: %s", version.model, version.version, error)
        self._on_change(version.model, Change.REFUSED)

    def _opened(self) -> Engine:
        if self._engine is None:
            raise NotReady("the server is loading its models; try again soon")
        return self._engine

    async def _to_its_end(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was logged; who asked may have gone


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest version of a model that can be loaded."""

    repository: Repository
    versions: list[Version]

    def load(self, config: EngineConfig, watchdog: Watchdog) -> Model | None:
        """See ``Repository.load_first``."""
        return self.repository.load_first(self.versions, watchdog)
