"""Does the installed transformers read a checkpoint of a newer one as that did?

transformers 5 writes the base of rotary positions under another name than transformers 4, which leaves that name aside
and takes its default: the model loads, and gives other numbers. Nothing that is compared later would show it, as the
reference is wrong in the same way, so it is looked for here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import toolset
from ..errors import CheckpointUnsupported
from .source import read_json

_ROPE = "rope_parameters"
_READS_IT = 5
OLDER = "`pip install 'pairwire[export,optimum]'`"
"""How to install the set of libraries that code of older checkpoints was written for."""
_THETA = "rope_theta"
_OLD_NAMES = {
    "full_attention": ("global_rope_theta", "rope_theta"),
    "sliding_attention": ("local_rope_theta", "rope_local_base_freq"),
}
"""What transformers 4 calls the base of a kind of layer."""


def check_positions(directory: Path, config: Any) -> None:
    """Raises where ``config``, as it was loaded from the directory, has other rotary positions than the file says.

    Raises:
        CheckpointUnsupported: what differs, and how to install what reads it.
    """
    written = read_json(directory / "config.json").get(_ROPE)
    if not isinstance(written, dict) or toolset.look().major("transformers") >= _READS_IT:
        return
    wrong = [f"{name} {value!r}" for name, value, is_read in _entries(written, config) if not is_read]
    if wrong:
        raise CheckpointUnsupported(
            f"{directory.name}: config.json: {_ROPE} ({', '.join(wrong)}) is read by transformers 5 alone; {advice()}"
        )


def hint(directory: Path) -> str:
    """What to add to the reason why a checkpoint cannot be loaded; empty where its release is no newer than ours."""
    config, ours = read_json(directory / "config.json"), toolset.look().major("transformers")
    release = str(config.get("transformers_version") or "")
    head = release.partition(".")[0]
    if config.get("auto_map") and ours >= _READS_IT and (not head.isdigit() or int(head) < ours):
        return f"; its code may need transformers 4: {OLDER}"
    if not head.isdigit() or int(head) <= ours:
        return ""
    return f"; transformers {release} has saved it: {advice()}"


def advice() -> str:
    """How to install the set of libraries that reads checkpoints of transformers 5."""
    return f"`pip uninstall -y optimum-onnx optimum && {toolset.NEWER}`"


def _entries(written: Mapping[str, Any], config: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name and value of what stands in the file, and whether the loaded configuration says the same."""
    by_kind: dict[str, Mapping[str, Any]] = {kind: part for kind, part in written.items() if isinstance(part, dict)}
    for kind, part in (by_kind or {"full_attention": written}).items():
        names = _OLD_NAMES.get(kind, ()) if by_kind else (_THETA,)
        bases = [getattr(config, name) for name in names if getattr(config, name, None) is not None]
        scaled = getattr(config, "rope_scaling", None) or {}
        for name, value in part.items():
            if name == _THETA:
                yield f"{kind}: {name}" if by_kind else name, value, bool(bases) and bases[0] == value
            elif name == "rope_type":
                yield name, value, value == "default" or scaled.get("rope_type", scaled.get("type")) == value
            else:
                yield name, value, scaled.get(name, getattr(config, name, None)) == value
