"""TEI's ``/info``: the model that is described where a protocol knows of one, and what may be sent."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from ....config import ServerConfig
from ....engine.kinds import ModelKind
from ....engine.results import ModelInfo
from ...roles import Role
from ..answers import Answer, json_answer
from ..routes import Asked, Route, Services
from .common import TEI
from .types import Info

_PRECISIONS = {"fp32": "float32", "fp16": "float16"}


class InfoPage:
    """``/info``."""

    def __init__(self, services: Services, config: ServerConfig) -> None:
        self._services = services
        self._config = config

    @property
    def routes(self) -> Iterable[Route]:
        """The one."""
        yield Route.get("/info", self.info, TEI, "The model and the limits (TEI)", Info)

    async def info(self, asked: Asked[Any]) -> Answer:
        """Of the model that ``--default-info-model`` names, or the first."""
        found = self._services.find(asked, Role.INFO, None)
        config = self._config
        info: Info = {
            "model_id": found.manifest.source or found.name,
            "model_sha": found.manifest.revision or None,
            "model_dtype": _dtype(found),
            "served_model_name": found.name,
            "model_type": _type(found),
            "max_concurrent_requests": config.connections.connection_limit(),
            "max_input_length": found.max_length,
            "max_batch_tokens": config.engine.queue_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": config.limits.max_items,
            "auto_truncate": True,
            "tokenization_workers": config.engine.text_thread_count(cuda=found.runtime.cuda is not None),
            "version": metadata.version("pairwire"),
            "sha": None,
            "docker_label": None,
        }
        return await json_answer(info)


def _dtype(info: ModelInfo) -> str:
    precision = info.variant.partition("-")[2].partition("-")[0]
    return _PRECISIONS.get(precision, precision or "float32")


def _type(info: ModelInfo) -> dict[str, dict[str, Any]]:
    if info.kind is not ModelKind.CROSS_ENCODER:
        pooling = "splade" if info.kind is ModelKind.SPARSE_ENCODER else "+".join(info.manifest.pooling)
        return {"embedding": {"pooling": pooling}}
    labels = list(info.manifest.labels)
    names: dict[str, Any] = {
        "id2label": {str(at): label for at, label in enumerate(labels)},
        "label2id": {label: at for at, label in enumerate(labels)},
    }
    return {"reranker" if len(labels) == 1 else "classifier": names}
