"""A version of a model -> a model that is warm, in a thread of its own, behind what is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

from ..engine.config import EngineConfig
from ..engine.models.loading import choose_variant, load_model
from ..engine.models.memory import bring_to_height
from ..engine.models.model import Model, content_of
from ..engine.watchdog import Watchdog
from ..package import read_package
from ..runtime.wheels import check_wheels
from .layout import Version

_NICENESS = 10
"""Of a thread that loads: about a tenth of what a thread that serves gets of a CPU that both want."""


def content(version: Version, config: EngineConfig) -> str:
    """What tells a package from others, as ``Model.content`` does; reads the manifest and the tokenizer.

    Raises:
        PackageInvalid: the package is damaged, incomplete, or has no fitting variant.
    """
    package = read_package(version.directory)
    return content_of(package.manifest, choose_variant(package, config, check_wheels()).name)


def open_version(version: Version, config: EngineConfig, watchdog: Watchdog) -> Model:
    """The model under its name in the repository. Blocks; see ``load_model``."""
    model = load_model(version.directory, config, watchdog=watchdog)
    return replace(model, name=version.model, version=version.version)


async def open_behind(version: Version, config: EngineConfig, watchdog: Watchdog, workers: int) -> Model:
    """The same, ready for as many workers, while others serve.

    Raises:
        StartupError: it cannot be loaded and run.
    """

    def work() -> Model:
        model = open_version(version, config, watchdog)
        try:
            bring_to_height([model], workers, watchdog)
        except BaseException:
            model.runtime.close()
            raise
        return model

    # Threads that ONNX Runtime starts for a session are as nice as who started it, for good: only where there are none.
    return await _behind(work, nice=config.intra_op_threads == 1)


async def _behind(work: Callable[[], Model], *, nice: bool) -> Model:
    """What the work gives, from a thread that ends with it. Where nobody waits any more, the model is closed."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Model] = loop.create_future()

    def settle(model: Model | None, error: BaseException | None) -> None:
        if not done.done():
            if error is not None:
                done.set_exception(error)
            elif model is not None:
                done.set_result(model)
        elif model is not None:
            model.runtime.close()

    def run() -> None:
        model, failure = None, None
        if nice and sys.platform == "linux":  # elsewhere niceness is the process's
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            model = work()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, model, failure)
        except RuntimeError:  # the loop has gone
            if model is not None:
                model.runtime.close()

    threading.Thread(target=run, name="pairwire-load", daemon=True).start()
    return await done
