"""Which GPU a process takes, where several share a port."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..config import ServerConfig
from ..errors import RuntimeMissing
from ..runtime.nvidia import Gpu, find_gpus, visible


def with_own_device(config: ServerConfig, number: int, find: Callable[[], Sequence[Gpu]] = find_gpus) -> ServerConfig:
    """The configuration of the process of that number, from 0: the GPUs go round, unless one is asked for.

    Nothing changes where there are no GPUs, or where the driver cannot be asked.
    """
    if config.engine.cuda_device >= 0 or config.engine.provider == "cpu":
        return config
    try:
        gpus = visible(find())
    except RuntimeMissing:
        return config
    if not gpus:
        return config
    engine = dataclasses.replace(config.engine, cuda_device=number % len(gpus))
    return dataclasses.replace(config, engine=engine)
