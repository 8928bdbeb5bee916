"""The models of an engine as they come and go while it serves: what is kept for each, and when it may be freed.

Who asks for a model by name gets the one that the catalog has at that moment, and keeps it until the answer. So a model
is exchanged by one assignment: what was accepted before ends on the old one, what comes after it starts on the new one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace

from ..errors import ModelRefused, NotReady
from ..freed_memory import return_freed_memory
from .batching.scheduler import SchedulerStatistics
from .cache import ByteCache
from .call import Calls
from .config import EngineConfig
from .first_stage import Stages
from .models.catalog import Catalog
from .models.model import Model, on_gpu
from .open_requests import OpenRequests
from .results import ModelInfo, ModelStatistics
from .running.worker import WorkerPool

logger = logging.getLogger(__name__)


class Fleet:
    """Belongs to one event loop, but for ``statistics``."""

    def __init__(
        self,
        catalog: Catalog,
        workers: WorkerPool,
        stages: Stages,
        calls: Calls,
        requests: OpenRequests,
        token_caches: MutableMapping[str, ByteCache],
        config: EngineConfig,
    ) -> None:
        """``token_caches``, by key, are filled here; workers and stages know the models of the catalog already."""
        self._catalog = catalog
        self._pool = workers
        self._stages = stages
        self._calls = calls
        self._requests = requests
        self._tokens = token_caches
        self._token_bytes = config.token_cache_bytes
        self.workers = config.worker_count(cuda=on_gpu(catalog.models.values()))
        """Threads that run batches, for all models that ever come."""
        self._generations = itertools.count(1)
        self._leaving: dict[str, Model] = {}
        self.infos: Mapping[str, ModelInfo] = {}
        """The models that answer, by name; never changed, but replaced."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when other models answer than before."""
        for model in catalog.models.values():
            self._tokens[model.key] = ByteCache(self._token_bytes)
        self._describe()

    async def install(self, model: Model) -> None:
        """See ``Engine.install``."""
        if self._requests.draining:
            raise NotReady("the engine is draining and takes no new models")
        if model.name in self._catalog.aliases:
            raise ModelRefused(f"{model.name!r} is an alias; give the model another name, or start without the alias")
        known = self._catalog.models.get(model.name)
        if known is not None and known.kind is not model.kind:
            raise ModelRefused(
                f"model {model.name!r} is a {known.kind.value}, and its new package is a {model.kind.value}: callers "
                "would fail; give it another name, or unload the old one first"
            )
        model = replace(model, generation=next(self._generations))
        self._pool.add(model)
        self._stages.add(model)
        self._tokens[model.key] = ByteCache(self._token_bytes)
        old = self._catalog.put(model)
        self._describe()
        if old is not None:
            await self._free(old)

    async def remove(self, name: str) -> None:
        """See ``Engine.remove``."""
        old = self._catalog.take(name)
        self._describe()
        await self._free(old)

    def statistics(self, queue: SchedulerStatistics, unhealthy: frozenset[str]) -> dict[str, ModelStatistics]:
        """By name, of the models that answer. From any thread."""
        shared = self._pool.shared_rows()
        found = {}
        for name, model in self._catalog.models.items():
            work, tokens = queue.models.get(model.key), self._tokens.get(model.key)
            if work is None or tokens is None:  # it came or went this moment
                continue
            found[name] = ModelStatistics(
                healthy=model.key not in unhealthy,
                queued_rows=work.queued_rows,
                queued_tokens=work.queued_tokens,
                running_rows=work.running_rows,
                shared_rows=shared.get(model.key, 0),
                token_cache=tokens.statistics(),
                vector_cache=self._stages.cache_statistics(model.key),
                cuda=model.runtime.info.cuda,
                version=model.version,
            )
        return found

    def close(self) -> None:
        """Frees every model. The workers have ended."""
        for model in (*self._catalog.models.values(), *self._leaving.values()):
            model.runtime.close()
        self._leaving.clear()

    async def _free(self, model: Model) -> None:
        """Returns when nobody uses the model any more and what it had is freed."""
        self._leaving[model.key] = model
        await self._requests.wait_unused(model.key)
        if not await asyncio.to_thread(self._pool.remove, model):
            return  # the engine ends, and closes it
        if self._leaving.pop(model.key, None) is None:
            return
        del self._tokens[model.key]
        self._stages.remove(model)
        self._calls.forget(model)
        await asyncio.to_thread(model.runtime.close)
        await asyncio.to_thread(return_freed_memory)
        logger.info("freed model %r, version %s", model.name, model.version)

    def _describe(self) -> None:
        self.infos = {name: model.info(self.workers) for name, model in self._catalog.models.items()}
        self.on_change()
