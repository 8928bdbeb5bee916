"""The tensors of a PEFT adapter -> layers of a loaded transformers model, in place.

peft puts the layers in and takes the weights, as transformers' ``load_adapter`` does inside sentence-transformers. That
one only logs which tensors found no place, and the model then scores as if it had no adapter; here they are refused.
Embeddings get as many rows as the adapter was trained with: peft's own classes do so from the tokenizer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointUnsupported
from .weights import listed

_PREFIX = "base_model.model."
_CONFIG = "adapter_config.json"
_NAME = "default"
"""What peft calls an adapter that nobody named."""
_SHOWN = 3
_HEADS = ("classifier", "score")
_WHOLE_HEAD = r"(?:base_model\.model\.)?{}\.(?:out_proj\.)?weight"


def insert(model: Any, directory: Path, tokenizer: Any, *, merge: bool) -> None:
    """Puts the adapter into ``model``; with ``merge`` it is added to the weights, and its layers are gone again.

    Raises:
        CheckpointUnsupported: peft cannot, or the adapter belongs to another base: the sentence says which tensors.
    """
    weights = read_weights(directory)
    adapted = _inserted(model, directory, weights, tokenizer)
    if merge:
        with _fitting(directory):
            adapted.merge_and_unload(safe_merge=True)


@contextlib.contextmanager
def _fitting(directory: Path) -> Iterator[None]:
    """Turns what peft raises into a sentence: its tuners raise what they like, and each is a fault of the adapter's.

    Raises:
        CheckpointUnsupported: what went wrong.
    """
    try:
        yield
    except Exception as error:
        raise CheckpointUnsupported(
            f"{directory.name}: the adapter does not fit its base ({_reason(error)}); was it trained on another model?"
        ) from error


def bare(module: Any) -> Any:
    """The module that a layer of an adapter stands in front of; the module itself where it is none."""
    while True:
        inner = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        inner = inner or getattr(getattr(module, "token_adapter", None), "base_layer", None)
        if inner is None:
            return module
        module = inner


def read_weights(directory: Path) -> dict[str, Any]:
    """The adapter's tensors by name; a pickled file is read as tensors and nothing else.

    Raises:
        CheckpointUnsupported: no such file, or a damaged one.
    """
    from peft.utils.save_and_load import load_peft_weights

    try:
        weights: dict[str, Any] = load_peft_weights(str(directory), device="cpu")
    except Exception as error:
        raise CheckpointUnsupported(
            f"{directory.name}: the adapter's weights cannot be read ({_reason(error)})"
        ) from error
    return weights


def _inserted(model: Any, directory: Path, weights: dict[str, Any], tokenizer: Any) -> Any:
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict

    with _fitting(directory):
        config = PeftConfig.from_pretrained(str(directory))
    if config.is_prompt_learning:
        raise CheckpointUnsupported(
            f"{directory.name}: an adapter of type {config.peft_type.value} adds tokens in place of weights; expected"
            " one that can be merged, such as LORA"
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise CheckpointUnsupported(
            f"{directory.name}: alora_invocation_tokens: its weights depend on the text, so they cannot be merged"
        )
    config.inference_mode = True
    _name_heads(config, weights)
    _fit_embeddings(model, directory, weights, config, tokenizer)
    # Not the class of a task: that one would also look for a trained head where the base's own was kept.
    with _fitting(directory):
        adapted = PeftModel(model, config)
        result: Any = set_peft_model_state_dict(adapted, weights)
    _check_names(adapted, directory, result.unexpected_keys, result.missing_keys)
    adapted.eval()
    return adapted


def _name_heads(config: Any, weights: Mapping[str, Any]) -> None:
    """A head in the file is a module that was trained whole, as peft's class for classifiers has it.

    Earlier versions of peft did not write that into the adapter's configuration.
    """
    heads = {name for name in _HEADS for key in weights if re.fullmatch(_WHOLE_HEAD.format(name), key)}
    if heads and hasattr(config, "modules_to_save"):
        config.modules_to_save = sorted(heads | set(config.modules_to_save or ()))


def _check_names(adapted: Any, directory: Path, unexpected: Sequence[str], missing: Sequence[str]) -> None:
    """Every tensor of the file has a place, and every layer that peft would save was in the file."""
    from peft import get_peft_model_state_dict

    if unexpected:
        raise CheckpointUnsupported(
            f"{directory.name}: the base has no place for the adapter's {listed(unexpected)}; it was trained on another"
            " model, or as another kind (encoder, classifier, language model)"
        )
    saved = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    lacking = [re.sub(rf"\.{_NAME}(?=\.|$)", "", name) for name in missing]
    lacking = [name for name in lacking if name in saved or name.removesuffix(".weight") in saved]
    if lacking:
        raise CheckpointUnsupported(
            f"{directory.name}: {_CONFIG} names layers that the adapter's file lacks: {listed(lacking)}"
        )


def _fit_embeddings(model: Any, directory: Path, weights: Mapping[str, Any], config: Any, tokenizer: Any) -> None:
    """Gives the embeddings the rows that the adapter was trained with.

    Raises:
        CheckpointUnsupported: rows of tokens would be random numbers, because no file has them.
    """
    table = model.get_input_embeddings()
    known = int(table.num_embeddings)
    saved = _saved_rows(model, weights)
    trained = set(_trained_tokens(config))
    rows = saved or max([known, *(index + 1 for index in trained)])
    if trained and not saved and rows > known:
        rows = max(rows, len(tokenizer))
    if rows == known:
        return
    model.resize_token_embeddings(rows)
    random = [] if saved else [index for index in range(known, min(rows, len(tokenizer))) if index not in trained]
    if random:
        tokens = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(random[:_SHOWN])))
        raise CheckpointUnsupported(
            f"{directory.name}: the tokenizer has {len(random)} added tokens ({tokens}...) whose embeddings are neither"
            " in the adapter nor in its base; save the adapter with save_embedding_layers=True"
        )


def _saved_rows(model: Any, weights: Mapping[str, Any]) -> int | None:
    """Rows of the whole embedding table, where the adapter's file has it."""
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    whole = re.compile(rf"({re.escape(_PREFIX)})?{re.escape(name)}(\.token_adapter)?(\.base_layer)?\.weight")
    return next((int(tensor.shape[0]) for key, tensor in weights.items() if whole.fullmatch(key)), None)


def _trained_tokens(config: Any) -> list[int]:
    """Ids of tokens whose rows the adapter brings one by one."""
    indices = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    lists = indices.values() if isinstance(indices, Mapping) else [indices]
    return [int(index) for each in lists for index in each]


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch's first line only says that there is a list.
    detail = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else "")
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__
