"""What the tensors of KServe v2 mean: inputs -> one call of the engine -> outputs, for gRPC and for REST.

A cross-encoder reads ``query`` [1] or [n] with ``documents`` [n] (or ``passage``, ``passages``), ``text_a`` with
``text_b``, or single texts, ``text``; the other models read ``text``. In place of texts every model reads what its
tokenizer gives, special tokens and padding included: ``input_ids`` [n, length], ``attention_mask``, and for pairs
``token_type_ids``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..config import RequestLimits
from ..engine.encodings import Encoding
from ..engine.engine import Engine
from ..engine.kinds import ModelKind
from ..engine.models.manifest import head_of
from ..engine.outputs.heads import Activation, activate
from ..engine.outputs.ranking import rank
from ..engine.results import ModelInfo, ReadingOptions, ScoreOptions, ScoreResult
from ..engine.text.token_ids import Text
from ..engine.text.truncation import Truncation
from ..engine.text.whole_rows import Integers
from ..errors import InvalidInput
from ..rpc.texts import check_prompt, decode_text, decode_texts
from ..rpc.vectors import check_vectors, check_weights
from .fields import naming
from .kserve_parameters import Parameters
from .kserve_tensors import Tensor, matrix_of, texts_of

OptionsT = TypeVar("OptionsT", bound=ReadingOptions)

ROWS = ("input_ids", "attention_mask", "token_type_ids")
DOCUMENTS = ("documents", "passage", "passages")
OUTPUTS: Mapping[ModelKind, tuple[str, ...]] = {
    ModelKind.CROSS_ENCODER: ("score", "logit", "rank"),
    ModelKind.BI_ENCODER: ("embedding",),
    ModelKind.SPARSE_ENCODER: ("indices", "values", "counts"),
}
"""By kind of model; ``rank`` only with one label."""
_OTHER_NAMES = {"logits": "logit", "scores": "score", "sentence_embedding": "embedding", "embeddings": "embedding"}
"""Names of outputs that graphs exported by hand have."""


@dataclass(frozen=True, slots=True)
class Inference:
    """A request, in the terms of neither gRPC nor JSON."""

    model: ModelInfo
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    """Names of those that are wanted; empty for all."""
    parameters: Parameters


def outputs_of(info: ModelInfo) -> tuple[str, ...]:
    """Names of what a model gives."""
    names = OUTPUTS[info.kind]
    several = info.kind is ModelKind.CROSS_ENCODER and len(info.manifest.labels) != 1
    return names[:2] if several else names


async def infer(engine: Engine, inference: Inference, limits: RequestLimits, timeout_s: float | None) -> list[Tensor]:
    """The tensors that are wanted, in the order in which they are.

    Raises:
        InvalidInput: inputs, outputs or parameters that this model does not have, or that do not fit each other.
        What the engine raises.
    """
    known = outputs_of(inference.model)
    wanted = [_OTHER_NAMES.get(name, name) for name in inference.outputs] or list(known)
    for name in wanted:
        if name not in known:
            raise InvalidInput(f"outputs.{name}", f"model {inference.model.name!r} has no such output; {_list(known)}")
    inference.parameters.check()
    found = await _ANSWERS[inference.model.kind](engine, inference, limits, timeout_s, wanted)
    named = inference.outputs or known
    return [replace(found[own], name=name) for own, name in zip(wanted, named, strict=True)]


async def _scores(
    engine: Engine, inference: Inference, limits: RequestLimits, timeout_s: float | None, wanted: Sequence[str]
) -> dict[str, Tensor]:
    info, parameters = inference.model, inference.parameters
    options = _unprompted(inference, parameters.score_options(_truncation(inference)))
    activation = options.activation or head_of(info.manifest).activation
    top_k = parameters.top_k()
    if "logit" in wanted:  # scores are made of them, as the engine does it
        options = replace(options, activation=Activation.IDENTITY)
    result = await _score(engine, inference, limits, options, parameters.timeout_s(timeout_s))
    scores = activate(result.scores, activation) if "logit" in wanted else result.scores
    found = {"score": Tensor.of("score", scores), "logit": Tensor.of("logit", result.scores)}
    if "rank" in wanted:
        found["rank"] = Tensor.of("rank", np.array(rank(scores[:, 0], top_k), np.int64))
    return found


async def _score(
    engine: Engine, inference: Inference, limits: RequestLimits, options: ScoreOptions, timeout_s: float | None
) -> ScoreResult:
    name, inputs = inference.model.name, inference.inputs
    prompt = inference.parameters.prompt()
    documents = next((each for each in DOCUMENTS if each in inputs), "")
    if documents and "query" in inputs:
        _only(inputs, ("query", documents))
        return await _score_two(engine, inference, limits, options, timeout_s, "query", documents)
    if "text_a" in inputs and "text_b" in inputs:
        _only(inputs, ("text_a", "text_b"))
        return await _score_two(engine, inference, limits, options, timeout_s, "text_a", "text_b")
    if "text" in inputs:
        _only(inputs, ("text",))
        texts = decode_texts("text", texts_of(inputs["text"]), limits)
        check_prompt(prompt, len(texts), limits)
        with naming(texts="text"):
            return await engine.score_texts(texts, model=name, options=options, timeout_s=timeout_s)
    if "input_ids" in inputs:
        _only(inputs, ROWS)
        ids, mask, types = _rows(inputs, limits)
        pairs = engine.pairs_of_rows(ids, mask, types, model=name)
        with naming(first="input_ids", second="input_ids"):
            return await engine.score(pairs, model=name, options=options, timeout_s=timeout_s)
    raise InvalidInput("inputs", f"{_list(inputs)}; give query and documents, text_a and text_b, text, or input_ids")


async def _score_two(
    engine: Engine,
    inference: Inference,
    limits: RequestLimits,
    options: ScoreOptions,
    timeout_s: float | None,
    first: str,
    second: str,
) -> ScoreResult:
    """One first text with many second ones, or as many as there are of those."""
    name, inputs = inference.model.name, inference.inputs
    firsts, seconds = texts_of(inputs[first]), decode_texts(second, texts_of(inputs[second]), limits)
    check_prompt(inference.parameters.prompt(), len(seconds), limits)
    if len(firsts) == 1:
        query = decode_text(first, firsts[0], limits)
        with naming(query=first, documents=second):
            return await engine.score_documents(query, seconds, model=name, options=options, timeout_s=timeout_s)
    if len(firsts) != len(seconds):
        raise InvalidInput(first, f"{len(firsts)} texts beside {len(seconds)} of {second}; give one, or as many")
    pairs = list(zip(decode_texts(first, firsts, limits), seconds, strict=True))
    with naming(first=first, second=second):
        return await engine.score(pairs, model=name, options=options, timeout_s=timeout_s)


async def _vectors(
    engine: Engine, inference: Inference, limits: RequestLimits, timeout_s: float | None, wanted: Sequence[str]
) -> dict[str, Tensor]:
    info, parameters = inference.model, inference.parameters
    options = _unprompted(inference, parameters.embed_options(_truncation(inference)))
    field, texts = _texts(engine, inference, limits)
    whole = info.manifest.dimensions
    dimensions = min(options.dimensions or info.manifest.default_dimensions or whole, whole)
    with naming(texts=field):
        check_vectors(len(texts), dimensions, Encoding.FLOAT32, limits)
        result = await engine.embed(texts, model=info.name, options=options, timeout_s=parameters.timeout_s(timeout_s))
    return {"embedding": Tensor.of("embedding", result.embeddings)}


async def _weights(
    engine: Engine, inference: Inference, limits: RequestLimits, timeout_s: float | None, wanted: Sequence[str]
) -> dict[str, Tensor]:
    info, parameters = inference.model, inference.parameters
    options = _unprompted(inference, parameters.sparse_options(_truncation(inference)))
    field, texts = _texts(engine, inference, limits)
    with naming(texts=field):
        result = await engine.embed_sparse(
            texts, model=info.name, options=options, timeout_s=parameters.timeout_s(timeout_s)
        )
        check_weights(result, limits)
    return {name: Tensor.of(name, getattr(result, name)) for name in OUTPUTS[ModelKind.SPARSE_ENCODER]}


_ANSWERS = {
    ModelKind.CROSS_ENCODER: _scores,
    ModelKind.BI_ENCODER: _vectors,
    ModelKind.SPARSE_ENCODER: _weights,
}


def _texts(engine: Engine, inference: Inference, limits: RequestLimits) -> tuple[str, Sequence[Text]]:
    """Single texts, and the name of the input that they are in."""
    inputs = inference.inputs
    if "text" in inputs:
        _only(inputs, ("text",))
        texts = decode_texts("text", texts_of(inputs["text"]), limits)
        check_prompt(inference.parameters.prompt(), len(texts), limits)
        return "text", texts
    if "input_ids" in inputs:
        _only(inputs, ROWS)
        ids, mask, _ = _rows(inputs, limits)
        return "input_ids", engine.texts_of_rows(ids, mask, model=inference.model.name)
    raise InvalidInput("inputs", f"{_list(inputs)}; give text, or input_ids")


def _rows(inputs: Mapping[str, Tensor], limits: RequestLimits) -> tuple[Integers, Integers | None, Integers | None]:
    """``input_ids``, ``attention_mask`` and ``token_type_ids``, all [rows, length]."""
    found = {name: matrix_of(inputs[name]) for name in ROWS if name in inputs}
    ids = found["input_ids"]
    if len(ids) > limits.max_items:
        raise InvalidInput(
            "input_ids", f"{len(ids)} exceed --max-items {limits.max_items}; send several smaller requests"
        )
    for name, values in found.items():
        if values.shape != ids.shape:
            raise InvalidInput(name, f"shape {list(values.shape)}, but input_ids has {list(ids.shape)}")
    return ids, found.get("attention_mask"), found.get("token_type_ids")


def _truncation(inference: Inference) -> Truncation:
    """What is too long is cut; rows that come tokenised are not, for their caller has cut them already."""
    return Truncation.ERROR if "input_ids" in inference.inputs else Truncation.LONGEST_FIRST


def _unprompted(inference: Inference, options: OptionsT) -> OptionsT:
    """Without the checkpoint's default prompt, where rows come tokenised: whatever is before their texts is in them."""
    given = options.prompt is not None or options.prompt_name is not None
    return options if given or "input_ids" not in inference.inputs else replace(options, prompt="")


def _only(inputs: Mapping[str, Tensor], known: Sequence[str]) -> None:
    for name in inputs:
        if name not in known:
            others = ", ".join(each for each in known if each in inputs)
            raise InvalidInput(f"inputs.{name}", f"given beside {others}, which it does not go with; leave one out")


def _list(names: Mapping[str, Tensor] | Sequence[str]) -> str:
    return f"there is {', '.join(names) or 'none'}"
