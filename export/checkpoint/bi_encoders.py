"""What a package says of a bi-encoder: pooling, dimensions, prompts, from the loaded object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CheckpointUnsupported

_TOKENS, _VECTOR = "token_embeddings", "sentence_embedding"


def describe(reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` that bi-encoders alone have; ``reference`` is the loaded ``SentenceTransformer``.

    Raises:
        CheckpointUnsupported: a module or a setting that is not exported.
    """
    from sentence_transformers.sentence_transformer.modules import Dropout, Normalize

    from .static_embeddings import is_static  # which needs torch

    if is_static(reference):
        first, after, modes = reference[0], list(reference)[1:], ["mean"]
        _check_after(after)
    else:
        first, after = _modules(reference)
        modes = _modes(first)
    if "weightedmean" in modes and reference.tokenizer.padding_side == "left":
        raise CheckpointUnsupported(
            "weightedmean pooling of rows that are padded on the left weighs tokens by the padding before them, so a"
            " vector depends on its batch; set padding_side to right in tokenizer_config.json"
        )
    working = [module for module in after if not isinstance(module, Dropout)]  # which passes everything on
    cut = reference.truncate_dim
    return {
        "dimensions": _dimensions(first, after),
        "default_dimensions": int(cut or 0),
        "pooling": modes,
        "normalized": bool(working) and isinstance(working[-1], Normalize) and not cut,
        "similarity": str(reference.similarity_fn_name),
        **prompts_of(reference),
    }


def leaves_out_prompt(reference: Any) -> bool:
    """Whether pooling reads the tokens of the text alone, not those of the prompt before it."""
    return any(not getattr(module, "include_prompt", True) for module in reference)


def prompts_of(reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` about prompts.

    Empty ones are kept: sentence-transformers' ``encode_query`` and ``encode_document`` take them before a default one.
    """
    default = reference.default_prompt_name
    return {
        "prompts": dict(reference.prompts),
        "default_prompt_name": default if default and reference.prompts.get(default) else "",
    }


def _modules(reference: Any) -> tuple[Any, list[Any]]:
    """Pooling, and what comes after it. Before it, only a Dense over all tokens may come."""
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    modules = list(reference)[1:]
    at = next((index for index, module in enumerate(modules) if isinstance(module, Pooling)), None)
    if at is None:
        raise CheckpointUnsupported(f"modules {_names(reference)}: expected Pooling second")
    for module in modules[:at]:
        if not isinstance(module, Dense):
            raise _unknown(module, "before Pooling")
        _check_names(module, _TOKENS)
    _check_after(modules[at + 1 :])
    return modules[at], modules[at + 1 :]


def _check_after(modules: Sequence[Any]) -> None:
    """Of what makes a vector of a vector."""
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize

    for module in modules:
        if isinstance(module, Dense):
            _check_names(module, _VECTOR)
        elif not isinstance(module, (Dropout, LayerNorm, Normalize)):
            raise _unknown(module, "after Pooling")


def _unknown(module: Any, place: str) -> CheckpointUnsupported:
    return CheckpointUnsupported(
        f"module {type(module).__name__} {place} is not exported; Dense, Dropout, LayerNorm and Normalize are,"
        " and before Pooling a Dense over token_embeddings"
    )


def _modes(pooling: Any) -> list[str]:
    return [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)


def _check_names(module: Any, expected: str) -> None:
    names = {module.module_input_name, module.module_output_name}
    if names != {expected}:
        raise CheckpointUnsupported(
            f"a Dense module from {module.module_input_name} to {module.module_output_name}; expected {expected} to"
            f" {expected} at its place"
        )


def _dimensions(pooling: Any, after: Sequence[Any]) -> int:
    """Numbers of a whole vector, whatever it is cut to."""
    from sentence_transformers.sentence_transformer.modules import Dense

    last = next((module for module in reversed(after) if isinstance(module, Dense)), pooling)
    return int(last.get_embedding_dimension())


def _names(reference: Any) -> str:
    return ", ".join(type(module).__name__ for module in reference)
