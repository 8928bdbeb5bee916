"""A PEFT adapter directory -> the directory that sentence-transformers reads: its base's, its own files on top.

Nothing is copied: the directory is made of links. It holds no adapter; `adapter_layers` puts that into the loaded
object, which works for every kind of object and leaves pooling, Dense modules, prompts and tokenizer to the library.

Whose modules count follows the library. Where the adapter brings modules.json, its own folders, prompts and limits are
all there is, and the base gives nothing but the transformer. Where it brings none, it was put over what the base is, as
``SentenceTransformer(base).load_adapter(adapter)`` does, so the base's modules stay; but a directory that the library
can load by itself (config.json and a tokenizer in it) gets the library's default modules. The tokenizer is the
adapter's own where it has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairwire.server.engine.kinds import ModelKind

from ..errors import CheckpointNotFound, CheckpointUnsupported
from . import weight_files
from .files import check_files
from .source import Source, find_source, read_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_CONFIG, _MODULES, _ABOUT = "config.json", "modules.json", "config_sentence_transformers.json"
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.bpe.model")
_TOKENIZER = (*_VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_CHAT_TEMPLATES = ("chat_template.*", "additional_chat_templates")
_OF_MODULES = (_MODULES, _ABOUT, "sentence_*_config.json", "README.md")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_HEADS = (".classifier.out_proj.weight", ".classifier.weight", ".score.weight")
_HEADED = "ForSequenceClassification"
_LANGUAGE_MODEL = "ForCausalLM"
_TASKS: Mapping[str | None, ModelKind | None] = {
    "SEQ_CLS": ModelKind.CROSS_ENCODER,
    "CAUSAL_LM": ModelKind.CROSS_ENCODER,
    "FEATURE_EXTRACTION": None,
    None: None,
}
_KINDS = {"CrossEncoder": ModelKind.CROSS_ENCODER, "SparseEncoder": ModelKind.SPARSE_ENCODER}


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter, and the directory that it stands on."""

    given: Path
    """The adapter's directory, as a person named it."""
    directory: Path
    """What sentence-transformers loads: base and the files next to the adapter, without the adapter's tensors."""
    adapters: tuple[Path, ...]
    """Adapter directories in the order in which they are put in; more than one where a base is an adapter itself."""
    base: Path
    """The directory of the base that is no adapter."""
    base_name: str
    """What people call it: its hub id, or the directory's name."""
    kind: ModelKind | None = None
    """What the adapter was trained as; None where the files of ``directory`` say it."""
    labels: int | None = None
    """Labels of the classifier that the adapter brings; None where it brings none."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every directory that something is read from."""
        return (self.base, *self.adapters)

    @property
    def warnings(self) -> list[str]:
        """What a person should know, a sentence each."""
        if (self.given / _MODULES).is_file() or not (_stands_alone(self.given) and (self.base / _MODULES).is_file()):
            return []
        return [
            f"{self.given.name} brings no {_MODULES}, so its pooling is sentence-transformers' default, as that library"
            f" loads it; the modules of its base {self.base_name} are left out"
        ]


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds a PEFT adapter."""
    return (directory / CONFIG_FILE).is_file()


def lay_out(directory: Path, into: Path, kind: ModelKind | None = None) -> Adapted:
    """Makes the directory that the adapter stands on, below ``into``. ``kind`` is what a person says that it is.

    The base is found through the adapter's ``base_model_name_or_path``: a directory, or a hub id.

    Raises:
        CheckpointNotFound: the base is not to be had.
        CheckpointUnsupported: an adapter for another task, or files that are damaged.
    """
    adapters = _stack(directory)
    lowest = _base(adapters[0])
    check_files(lowest.directory)  # under its own name, which the folders of links below do not have
    base = lowest.directory
    for number, each in enumerate(adapters):
        check_files(each)
        view = into / str(number)
        _layer(base, each, view, kind)
        base = view
    check_files(base)
    if (base / _MODULES).is_file():
        return Adapted(directory, base, adapters, lowest.directory, lowest.name)
    found = kind or _kind_of(directory)
    labels = _write_labels(base, directory, lowest.name) if found is ModelKind.CROSS_ENCODER else None
    return Adapted(directory, base, adapters, lowest.directory, lowest.name, found, labels)


def tensors(directory: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the adapter's tensors.

    Raises:
        CheckpointUnsupported: there are none, or the file is damaged.
    """
    file = directory / WEIGHTS[0]
    if file.is_file():
        return weight_files.shapes(file)
    if not (directory / WEIGHTS[1]).is_file():
        raise CheckpointUnsupported(f"{directory.name}: neither {WEIGHTS[0]} nor {WEIGHTS[1]} is there")
    from .adapter_layers import read_weights

    return {name: tuple(tensor.shape) for name, tensor in read_weights(directory).items()}


def _stack(directory: Path) -> tuple[Path, ...]:
    """The adapter, and before it those that it stands on."""
    stack = [directory]
    while is_adapter(below := _base(stack[0]).directory):
        if any(below.samefile(known) for known in stack):
            raise CheckpointUnsupported(f"{CONFIG_FILE}: {below.name} stands on itself; name a base that is no adapter")
        stack.insert(0, below)
    return tuple(stack)


def _base(directory: Path) -> Source:
    config = read_json(directory / CONFIG_FILE)
    name = config.get("base_model_name_or_path")
    if not name:
        raise CheckpointUnsupported(f"{CONFIG_FILE}: base_model_name_or_path is empty; it must name the base model")
    # A relative path starts where a person stands, as for peft; adapters that travel with their base mean their own.
    if not Path(str(name)).is_dir() and (directory / str(name)).is_dir():
        return find_source(str(directory / str(name)))
    try:
        return find_source(str(name), config.get("revision"))
    except CheckpointNotFound as error:
        raise CheckpointNotFound(f"the adapter's base model is missing: {error}") from error


def _kind_of(directory: Path) -> ModelKind | None:
    """What an adapter without modules was trained as."""
    task = read_json(directory / CONFIG_FILE).get("task_type")
    if task not in _TASKS:
        expected = ", ".join(str(name) for name in _TASKS if name)
        raise CheckpointUnsupported(f"{CONFIG_FILE}: task_type {task!r}; expected one of {expected}, or none")
    if task == "FEATURE_EXTRACTION":
        return ModelKind.BI_ENCODER
    return _TASKS[task] or (ModelKind.CROSS_ENCODER if _label_count(directory) else None)


def _layer(base: Path, adapter: Path, view: Path, kind: ModelKind | None) -> None:
    """Fills ``view`` with links: the base's files, and the adapter's in front of them."""
    task = read_json(adapter / CONFIG_FILE).get("task_type")
    wanted = kind or _TASKS.get(task)
    own = (adapter / _MODULES).is_file() or _stands_alone(adapter) or (wanted or _made_as(base)) is not _made_as(base)
    inner = Path(_transformer_folder(adapter if own else base))
    beside = [_CONFIG, CONFIG_FILE, *_WEIGHTS, *([] if own else [_MODULES])]
    hidden = [*_OF_MODULES, *(_TOKENIZER if _has_vocabulary(adapter) else ())]
    if own:
        _link(adapter, view, leave=beside)
        _link_files(base / _transformer_folder(base), view / inner, leave=hidden)
    else:
        _link_files(adapter, view, leave=[*beside, *_TOKENIZER, *_CHAT_TEMPLATES, "sentence_*_config.json"])
        _link_files(adapter, view / inner, leave=[*beside, _ABOUT])
        if inner != Path():
            _link_files(base / inner, view / inner, leave=hidden[len(_OF_MODULES) :])
        _link(base, view, leave=hidden[len(_OF_MODULES) :])


def _made_as(base: Path) -> ModelKind | None:
    """What the modules of the base make of it; None where it has none."""
    if not (base / _MODULES).is_file():
        return None
    return _KINDS.get(str(read_json(base / _ABOUT).get("model_type")), ModelKind.BI_ENCODER)


def _stands_alone(adapter: Path) -> bool:
    """Whether the library loads the directory as it is, and gives it default modules."""
    return (adapter / _CONFIG).is_file() and _has_vocabulary(adapter)


def _has_vocabulary(directory: Path) -> bool:
    return any(True for pattern in _VOCABULARIES for _ in directory.glob(pattern))


def _transformer_folder(directory: Path) -> str:
    """Where modules.json puts the transformer; the directory itself without one."""
    file = directory / _MODULES
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointUnsupported(
            f"{directory.name}/{_MODULES}: expected a list of modules with their paths"
        ) from error


def _link(source: Path, target: Path, leave: list[str]) -> None:
    """As `_link_files`, and what lies in folders too."""
    _link_files(source, target, leave)
    for folder in _entries(source, leave):
        if folder.is_dir() and not folder.name.startswith("."):
            _link(folder, target / folder.name, [])


def _link_files(source: Path, target: Path, leave: list[str]) -> None:
    """Links to the files of a folder, but for those that ``leave`` matches or that are there already."""
    target.mkdir(parents=True, exist_ok=True)
    for file in _entries(source, leave):
        if file.is_file() and not (target / file.name).exists():
            (target / file.name).symlink_to(file.resolve())


def _entries(folder: Path, leave: list[str]) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not any(entry.match(pattern) for pattern in leave))


def _write_labels(view: Path, adapter: Path, base: str) -> int | None:
    """Makes config.json of a cross-encoder say what the adapter's head is; returns how many labels it has.

    Raises:
        CheckpointUnsupported: neither the adapter nor the base has a head.
    """
    config = read_json(view / _CONFIG)
    named = [str(name) for name in config.get("architectures") or []]
    count = _label_count(adapter)
    headed = any(name.endswith(_HEADED) for name in named)
    if count is None:
        if named and not headed and not named[0].endswith(_LANGUAGE_MODEL):
            raise CheckpointUnsupported(
                f"{adapter.name}: neither the adapter nor its base {base} brings a classifier, so its scores would"
                " come from random weights; train it with modules_to_save"
            )
        return None
    names = _names(config) if headed else {}
    if len(names) != count:
        names = _names(read_json(adapter / _CONFIG))
    if len(names) != count:
        names = {str(index): f"LABEL_{index}" for index in range(count)}
    config |= {"id2label": names, "label2id": {name: int(index) for index, name in names.items()}}
    if not headed:  # else the library takes it for a language model, or for a head of one label
        config["architectures"] = [_classifier_of(config)]
    (view / _CONFIG).unlink(missing_ok=True)
    (view / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return count


def _classifier_of(config: dict[str, Any]) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    known: Mapping[str, str] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return known.get(str(config.get("model_type")), _HEADED)


def _names(config: dict[str, Any]) -> dict[str, str]:
    names = config.get("id2label")
    return {str(index): str(name) for index, name in names.items()} if isinstance(names, dict) else {}


def _label_count(directory: Path) -> int | None:
    """Labels of the classifier that the adapter brings."""
    heads = [shape for name, shape in tensors(directory).items() if name.endswith(_HEADS)]
    return heads[0][0] if heads else None
