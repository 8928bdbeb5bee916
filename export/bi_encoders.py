"""What a package says of a bi-encoder: pooling, dimensions, prompts, from the loaded object."""

from __future__ import annotations

from typing import Any

from .errors import CheckpointUnsupported


def describe(reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` that bi-encoders alone have; ``reference`` is the loaded ``SentenceTransformer``.

    Raises:
        CheckpointUnsupported: a module or a setting that is not exported.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    modules = list(reference)[1:]
    if not modules or not isinstance(modules[0], Pooling):
        raise CheckpointUnsupported(
            f"modules {[type(module).__name__ for module in reference]}: expected Pooling second"
        )
    for module in modules[1:]:
        if not isinstance(module, (Dense, Normalize)):
            raise CheckpointUnsupported(f"module {type(module).__name__} is not exported; Dense and Normalize are")
    pooling = modules[0]
    modes = [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)
    if not pooling.include_prompt:
        raise CheckpointUnsupported("its pooling leaves prompts out (include_prompt is false); not exported yet")
    if "lasttoken" in modes:
        raise CheckpointUnsupported("it reads the last token (a decoder); Pairwire exports encoders so far")
    if reference.truncate_dim is not None:
        raise CheckpointUnsupported(f"it cuts vectors to {reference.truncate_dim} dimensions; not exported yet")
    default = reference.default_prompt_name
    return {
        "dimensions": int(reference.get_sentence_embedding_dimension()),
        "pooling": modes,
        "normalized": isinstance(modules[-1], Normalize),
        "prompts": {name: text for name, text in reference.prompts.items() if text},
        "default_prompt_name": default if default and reference.prompts.get(default) else "",
        "similarity": str(reference.similarity_fn_name),
    }
