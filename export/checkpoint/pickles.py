"""Weights in pickle format. The libraries read tensors and nothing else of them; here their refusal gets a sentence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointUnsupported

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CALLED = re.compile(r"Unsupported (?:global|class)\b[^\n]*?\bGLOBAL (\S+)|Unsupported class (\S+)")


@contextmanager
def tensors_only(directory: Path) -> Iterator[None]:
    """Explains the failure of a library that was given a pickle with more than tensors in it.

    torch's own message advises to load such a file all the same, and transformers' one speaks of TensorFlow.

    Raises:
        CheckpointUnsupported: which file it is, and what it would have called.
    """
    try:
        yield
    except Exception as error:
        cause = _unpickling(error)
        if cause is None:
            raise
        raise CheckpointUnsupported(f"{directory.name}: {_sentence(directory, cause)}") from error


def _unpickling(error: BaseException) -> pickle.UnpicklingError | None:
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        if isinstance(following, pickle.UnpicklingError):
            return following
        seen.append(following)
        following = following.__cause__ or following.__context__
    return None


def _sentence(directory: Path, cause: pickle.UnpicklingError) -> str:
    file = _culprit(directory)
    named = "a pickle" if file is None else f"{file.relative_to(directory)}, a pickle,"
    called = _CALLED.search(str(cause))
    if called is None:
        return f"{named} cannot be read as tensors: it is damaged, or holds something else"
    return (
        f"{named} would call {called[1] or called[2]} when it is read; Pairwire reads nothing but tensors, with or"
        " without --trust-remote-code: save the weights as safetensors"
    )


def _culprit(directory: Path) -> Path | None:
    """The first file that torch does not read as tensors."""
    import torch

    for file in sorted(path for pattern in _PICKLES for path in directory.rglob(pattern) if path.is_file()):
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except pickle.UnpicklingError:
            return file
        except (OSError, RuntimeError, ValueError):
            continue
    return None
