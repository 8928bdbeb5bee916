"""The one place where a checkpoint is loaded: by sentence-transformers, on the CPU in float32.

A checkpoint is loaded twice, apart from each other. The *reference* is what sentence-transformers makes of the path
that a person gave; scores and vectors are compared with it. What is *traced* is loaded again and prepared: plain
attention, an adapter merged. The two are compared before anything is made of the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pairwire.server.engine.kinds import ModelKind

from ..errors import CheckpointUnsupported, ExportError
from . import releases
from .adapter import Adapted
from .consent import check_consent
from .files import explain
from .pickles import tensors_only
from .source import read_json
from .weights import check_weights, recorded

_PLAIN = "eager"
_FAST = ("unpad_inputs", "use_flash_attention", "use_flash_attn", "use_memory_efficient_attention", "use_xformers")
"""Switches of config.json that code of a checkpoint knows: rows without padding, and kernels for that."""
_Options = dict[str, dict[str, Any]]
"""Of sentence-transformers: model_kwargs and config_kwargs."""


def load_reference(
    directory: Path, kind: ModelKind, *, trust_remote_code: bool = False, adapted: Adapted | None = None
) -> Any:
    """What sentence-transformers makes of the checkpoint, untouched.

    Most adapters it cannot load from their directory (config.json is missing there, which its tokenizer and its
    cross-encoders ask for). Then the judge is peft inside sentence-transformers: the base as the library loads it, and
    the adapter's layers in it, not merged.

    Raises:
        ConsentMissing: it asks for Python code to be run, and ``trust_remote_code`` is not given.
        WeightsInvalid: it would score with something else than its own weights.
        CheckpointUnsupported: it cannot be loaded; the sentence carries the library's reason.
    """
    if adapted is None:
        return _whole(directory, lambda: _load(directory, kind, trust_remote_code))
    with contextlib.suppress(CheckpointUnsupported):
        return _whole(adapted.given, lambda: _load(adapted.given, kind, trust_remote_code))
    return _whole(adapted.given, lambda: _adapted(adapted, kind, trust_remote_code, merge=False))


def load_for_tracing(
    directory: Path,
    kind: ModelKind,
    *,
    trust_remote_code: bool = False,
    adapted: Adapted | None = None,
    attention: str = _PLAIN,
) -> Any:
    """The same checkpoint with the given attention, and with its adapter merged.

    Plain attention has the graph with the fewest operators; an architecture without that choice has the one it has.
    What a configuration asks for to be faster with other kernels (`_FAST`) is left out: it gives the same numbers.

    Raises:
        As ``load_reference``.
    """
    options: _Options = {"model_kwargs": {"attn_implementation": attention}, "config_kwargs": _without_fast(directory)}
    try:
        return _prepared(directory, kind, trust_remote_code, adapted, options)
    except CheckpointUnsupported:
        if attention != _PLAIN:
            raise
    return _prepared(directory, kind, trust_remote_code, adapted, options | {"model_kwargs": {}})


def _whole(directory: Path, load: Callable[[], Any]) -> Any:
    """What ``load`` gives, if all that it scores with comes from files.

    What a base lacks and an adapter does not bring stays NaN until the end, which is when it is looked for.
    """
    with tensors_only(directory), recorded() as loads:
        loaded = load()
    check_weights(loaded, loads, directory.name)
    return loaded


def _prepared(
    directory: Path, kind: ModelKind, trust_remote_code: bool, adapted: Adapted | None, options: _Options
) -> Any:
    if adapted is None:
        return _whole(directory, lambda: _load(directory, kind, trust_remote_code, options))
    return _whole(adapted.given, lambda: _adapted(adapted, kind, trust_remote_code, options, merge=True))


def _adapted(
    adapted: Adapted, kind: ModelKind, trust_remote_code: bool, options: _Options | None = None, *, merge: bool
) -> Any:
    """The adapter's base with the adapters in it; without ``merge`` the last one stays as layers."""
    from . import adapter_layers  # which needs torch

    options = options or {}
    if adapted.labels is not None:  # the head that it replaces
        options = options | {"model_kwargs": {**options.get("model_kwargs", {}), "ignore_mismatched_sizes": True}}
    try:
        loaded = _load(adapted.directory, kind, trust_remote_code, options)
    except CheckpointUnsupported as error:  # which names the directory of links
        reason = str(error).removeprefix(f"{adapted.directory.name}: ")
        raise CheckpointUnsupported(f"{adapted.given.name} over {adapted.base_name}: {reason}") from error
    transformer = loaded[0]
    *below, last = adapted.adapters
    for directory in below:
        adapter_layers.insert(transformer.model, directory, transformer.tokenizer, merge=True)
    adapter_layers.insert(transformer.model, last, transformer.tokenizer, merge=merge)
    return loaded.eval()


def _load(directory: Path, kind: ModelKind, trust_remote_code: bool, options: _Options | None = None) -> Any:
    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

    from . import static_embeddings  # which needs torch

    check_consent(directory, trusted=trust_remote_code)
    _check_architectures(directory, kind)
    classes = {ModelKind.CROSS_ENCODER: CrossEncoder, ModelKind.SPARSE_ENCODER: SparseEncoder}
    load = classes.get(kind, SentenceTransformer)
    try:
        with static_embeddings.whole_tables():
            loaded = load(
                str(directory),
                device="cpu",
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                **(options or {}),
            )
    except ExportError:
        raise
    except Exception as error:  # a list of types cannot cover what other people's libraries raise
        reason = explain(directory, error, trust_remote_code=trust_remote_code)
        hint = "; --trust-remote-code runs the code that it brings" if "trust_remote_code" in str(error) else ""
        hint = hint or releases.hint(directory)
        raise CheckpointUnsupported(
            f"{directory.name}: sentence-transformers cannot load it: {reason}{hint}"
        ) from error
    if getattr(loaded[0], "config", None) is not None:
        releases.check_positions(directory, loaded[0].config)
    return loaded.float().eval()


def _without_fast(directory: Path) -> dict[str, bool]:
    config = read_json(directory / "config.json")
    return {name: False for name in _FAST if config.get(name)}


def _check_architectures(directory: Path, kind: ModelKind) -> None:
    """Without modules the library asks an empty list for its first entry."""
    if kind is not ModelKind.CROSS_ENCODER or (directory / "modules.json").is_file():
        return
    if read_json(directory / "config.json").get("architectures") == []:
        raise CheckpointUnsupported(
            f"{directory.name}: config.json: architectures is an empty list, which sentence-transformers cannot read;"
            " name the class of the model there, or remove the entry"
        )
