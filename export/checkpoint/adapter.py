"""A PEFT adapter directory -> a plain checkpoint directory with the adapter merged into its base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..errors import CheckpointNotFound, CheckpointUnsupported
from .consent import check_consent
from .files import check_files
from .pickles import tensors_only
from .source import find_source, read_json
from .weights import check_adapter, recorded

CONFIG_FILE = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_HEADS = (".classifier.out_proj.weight", ".classifier.weight", ".score.weight")


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds a PEFT adapter."""
    return (directory / CONFIG_FILE).is_file()


def merge(directory: Path, into: Path, *, trust_remote_code: bool = False) -> Path:
    """Writes the merged checkpoint into the directory ``into`` (which exists) and returns it.

    The base is found through the adapter's ``base_model_name_or_path``: a directory, or a hub id. Files that lie beside
    the adapter (tokenizer, config_sentence_transformers.json, ...) take precedence over the base's.

    Raises:
        CheckpointNotFound: the base is not to be had.
        CheckpointUnsupported: an adapter for another task.
    """
    check_consent(directory, trusted=trust_remote_code)
    config = read_json(directory / CONFIG_FILE)
    base = _base(directory, config)
    check_files(base)
    task = config.get("task_type") or ("FEATURE_EXTRACTION" if (directory / "modules.json").is_file() else "SEQ_CLS")
    if task not in ("SEQ_CLS", "FEATURE_EXTRACTION"):
        raise CheckpointUnsupported(f"{CONFIG_FILE}: task_type {task!r}; expected SEQ_CLS or FEATURE_EXTRACTION")
    # What the base lacks and the adapter does not bring stays NaN, which is refused when the result is loaded.
    with tensors_only(directory), recorded():
        (_merge_classifier if task == "SEQ_CLS" else _merge_encoder)(directory, base, into, trust_remote_code)
    for file in directory.iterdir():
        if file.is_file() and file.name != CONFIG_FILE and file.name not in _WEIGHTS:
            shutil.copy2(file, into / file.name)
    return into


def _base(directory: Path, config: dict[str, Any]) -> Path:
    name = config.get("base_model_name_or_path")
    if not name:
        raise CheckpointUnsupported(f"{CONFIG_FILE}: base_model_name_or_path is empty; it must name the base model")
    beside = directory / str(name)
    if beside.is_dir():
        return beside
    try:
        return find_source(str(name), config.get("revision")).directory
    except CheckpointNotFound as error:
        raise CheckpointNotFound(f"the adapter's base model is missing: {error}") from error


def _merge_classifier(directory: Path, base: Path, into: Path, trust_remote_code: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=_label_count(directory), trust_remote_code=trust_remote_code
    )
    adapted = PeftModel.from_pretrained(model, str(directory))
    check_adapter(adapted, directory)
    adapted.merge_and_unload().float().save_pretrained(into)
    tokenizer: Any = AutoTokenizer
    tokenizer.from_pretrained(base, trust_remote_code=trust_remote_code).save_pretrained(into)


def _merge_encoder(directory: Path, base: Path, into: Path, trust_remote_code: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    shutil.copytree(base, into, dirs_exist_ok=True)
    for old in [*into.glob("*.safetensors*"), *into.glob("pytorch_model*")]:
        old.unlink()
    model = AutoModel.from_pretrained(base, trust_remote_code=trust_remote_code)
    adapted = PeftModel.from_pretrained(model, str(directory))
    check_adapter(adapted, directory)
    adapted.merge_and_unload().float().save_pretrained(into)


def _label_count(directory: Path) -> int:
    """Labels of the classifier that the adapter brings."""
    path = directory / _WEIGHTS[0]
    if not path.is_file():
        raise CheckpointUnsupported(f"{directory.name}: no {_WEIGHTS[0]}; save the adapter in safetensors format")
    from safetensors import safe_open

    with safe_open(path, framework="np") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            if name.endswith(_HEADS):
                return int(tensors.get_slice(name).get_shape()[0])
    raise CheckpointUnsupported(
        f"{directory.name}: the adapter brings no classifier, so its scores would come from random weights; "
        "train it with modules_to_save"
    )
