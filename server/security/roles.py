"""What a caller may do, and what each call needs. Roles do not include each other: a key lists all that it has."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias


class Role(StrEnum):
    """What a key is good for."""

    INFER = "infer"
    """Scores, rankings, vectors: whatever runs a model or its tokenizer."""
    OPERATE = "operate"
    """Calls that change the server."""
    OBSERVE = "observe"
    """Metrics, reflection and the OpenAPI document, where these are closed."""


Need: TypeAlias = frozenset[Role]
"""Roles of which a caller must have one; nothing needs no key at all."""

NOTHING: Need = frozenset()
ANY: Need = frozenset(Role)
INFER: Need = frozenset({Role.INFER})
OPERATE: Need = frozenset({Role.OPERATE})
OBSERVE: Need = frozenset({Role.OBSERVE})

_DESCRIBING = (
    "GetModel",
    "Info",
    "ListModels",
    "ModelConfig",
    "ModelMetadata",
    "ModelStatistics",
    "RepositoryIndex",
    "ServerMetadata",
)
_OPERATING = (
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "LoadModel",
    "LogSettings",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "TraceSetting",
    "UnloadModel",
)
_PROBES = ("ModelReady", "ServerLive", "ServerReady")

_NEEDS: Mapping[str, Need] = {
    **dict.fromkeys(_DESCRIBING, ANY),
    **dict.fromkeys(_OPERATING, OPERATE),
    **dict.fromkeys(_PROBES, NOTHING),
}


def need_of_rpc(name: str) -> Need:
    """What an RPC of that name needs; what this table does not know needs ``infer``."""
    return _NEEDS.get(name, INFER)
