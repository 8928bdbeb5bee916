"""Sparse encoders with two ways for a text: queries by a table, documents by a model ("inference-free SPLADE").

sentence-transformers has a Router for that. What is exported as a graph, and compared as any sparse encoder, is the way
of documents; the table is written beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pairwire.server.engine.kinds import InputType
from pairwire.server.engine.models.query_table import QueryTable, table_of
from pairwire.server.runtime.base import Float32Array

from ..errors import CheckpointUnsupported
from . import static_embeddings

_QUERY, _DOCUMENT = InputType.QUERY.value, InputType.DOCUMENT.value
_ENDLESS = 1_000_000
"""From here on transformers means that a tokenizer has no limit."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The way of queries: what a package says of it, and who judges it."""

    tokenizer_json: str
    weights: Float32Array
    """[vocabulary] float32."""
    max_length: int
    truncate_left: bool
    default: InputType | None
    """What a text is where nobody says."""
    reference: Any
    """A ``SparseEncoder`` of that way alone."""

    def table(self) -> QueryTable:
        """The serving code's."""
        from tokenizers import Tokenizer

        return table_of(
            self.weights,
            Tokenizer.from_str(self.tokenizer_json),
            max_length=self.max_length,
            truncate_left=self.truncate_left,
        )


def is_routed(reference: Any) -> bool:
    """Whether a loaded model has several ways for a text."""
    from sentence_transformers.base.modules import Router

    return isinstance(reference[0], Router)


def documents_of(reference: Any) -> Any:
    """The loaded ``SparseEncoder`` without its way of queries; itself where there is no Router.

    Raises:
        CheckpointUnsupported: a Router of anything else.
    """
    if not is_routed(reference):
        return reference
    ways = _ways(reference)
    return _encoder(reference, ways[_DOCUMENT])


def queries_of(reference: Any, most_tokens: int | None = None) -> Queries | None:
    """The way of queries of a loaded ``SparseEncoder``; None where there is no Router.

    ``most_tokens`` is what a person asks for; it may be more than the tokenizer keeps, as documents may be longer.

    Raises:
        CheckpointUnsupported: a Router of anything else, or a table that is none.
    """
    if not is_routed(reference):
        return None
    router, (module,) = reference[0], _ways(reference)[_QUERY]
    tokenizer = module.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointUnsupported(f"queries are read by {type(tokenizer).__name__}, a slow (Python) tokenizer")
    own = int(tokenizer.model_max_length)
    limit = min(own, most_tokens or own)
    if limit >= _ENDLESS:
        limit = static_embeddings.MOST_TOKENS
    tokenizer.model_max_length = limit  # the judge cuts there too
    found = Queries(
        tokenizer_json=static_embeddings.plain(tokenizer.backend_tokenizer),
        weights=np.asarray(module.weight.detach(), dtype=np.float32),
        max_length=limit,
        truncate_left=tokenizer.truncation_side == "left",
        default=None if router.default_route is None else InputType(router.default_route),
        reference=_encoder(reference, [module]),
    )
    try:
        found.table()
    except ValueError as error:
        raise CheckpointUnsupported(f"{error}; the checkpoint is damaged, or its table is none of queries") from error
    return found


def _ways(reference: Any) -> dict[str, list[Any]]:
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    router = reference[0]
    ways = {name: list(modules) for name, modules in router.sub_modules.items()}
    described = "; ".join(f"{name}: {', '.join(type(each).__name__ for each in way)}" for name, way in ways.items())
    table = ways.get(_QUERY, [])
    if (
        set(ways) != {_QUERY, _DOCUMENT}
        or len(reference) != 1
        or len(table) != 1
        or not isinstance(table[0], SparseStaticEmbedding)
        or router.default_route not in (None, _QUERY, _DOCUMENT)
        or router.route_mappings
    ):
        raise CheckpointUnsupported(
            f"a Router ({described}); Pairwire exports those of sparse vectors whose queries are looked up"
            " (SparseStaticEmbedding) and whose documents are read by a model; export other ways one by one, each saved"
            " as a checkpoint of its own"
        )
    return ways


def _encoder(reference: Any, modules: list[Any]) -> Any:
    """Some modules of a loaded ``SparseEncoder``, with what it says of prompts and similarity."""
    from sentence_transformers import SparseEncoder

    encoder = SparseEncoder(
        modules=modules,
        device="cpu",
        prompts=dict(reference.prompts),
        default_prompt_name=reference.default_prompt_name,
        similarity_fn_name=reference.similarity_fn_name,
        max_active_dims=reference.max_active_dims,
    )
    return encoder.float().eval()
