"""Does a checkpoint ask for Python code to be run? Read from its JSON, before any library opens it.

Libraries have rules of trust of their own, and these depend on how a checkpoint is named: sentence-transformers imports
a module of a local directory that it would refuse of a hub id. Here there is one rule for all: whatever is neither
sentence-transformers' own class nor a layer of torch needs `--trust-remote-code`. A Python file that nothing names is
never run, so it is no reason to refuse.

All JSON files of the checkpoint are read, those of the folders that it names, inside or outside itself, and those of
the bases of its adapters. Keys that stand twice in one object are all judged, whichever a library would take.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairwire.server.reasons import reason_of

from ..errors import CheckpointNotFound, CheckpointUnsupported, ConsentMissing
from .source import find_source

_OWN = re.compile(r"sentence_transformers(\.\w+)*\.[A-Z]\w*", re.ASCII)
_TORCH = re.compile(r"torch\.nn\.(modules\.(\w+\.)?)?[A-Z]\w*", re.ASCII)
"""Layers and activations, which are made without arguments. Not all of torch: it has functions that load and run."""
_CLASS_KEY = re.compile(r"(^|_)(fn|function|class|cls)$")
_TOKENIZER_CLASS = "tokenizer_class"
_CHECKPOINT = ("config.json", "modules.json", "adapter_config.json")
"""One of these makes a folder a checkpoint, of which everything below is read."""
_PEFT_LIBRARIES = re.compile(r"(transformers|sentence_transformers|peft)(\.\w+)*", re.ASCII)
_DATA = ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json")
"""Keys of these are tokens."""
_GENERATE = Path("custom_generate", "generate.py")
"""The one Python file that transformers runs by its name alone, of every local model that can generate."""
_LEFT_OUT = ("onnx", "openvino")
_SNAPSHOTS = "checkpoint-"
"""Folders of a training run, which no export reads unless something names them."""
_BASE, _TOKENIZER = "base_model_name_or_path", "tokenizer_name_or_path"
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """A place of a checkpoint that asks for code."""

    file: str
    key: str
    what: str
    """The class or the value, with the Python file where there is one."""

    def __str__(self) -> str:
        return f"{self.file}: {self.key} {self.what}" if self.key else f"{self.file} {self.what}"


def check_consent(directory: Path, *, trusted: bool) -> None:
    """Raises where loading the checkpoint would run code that comes with it or that it names, and nobody has agreed.

    ``trusted`` is the user's word (`--trust-remote-code`). Bases of adapters are judged too: next to the adapter, from
    the working directory and on the hub, and so are their own bases.

    Raises:
        ConsentMissing: file, key and class.
        CheckpointUnsupported: a configuration file that is not JSON.
    """
    if trusted:
        return
    found = find_references(directory)
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ConsentMissing(
            f"it asks for Python code to be run: {'; '.join(map(str, found[:_NAMED]))}{more}. --trust-remote-code runs"
            " it; without the flag nothing of a checkpoint is"
        )


def find_references(directory: Path) -> list[Reference]:
    """Every place of the checkpoint, and of the bases of its adapters, that asks for code.

    Raises:
        CheckpointUnsupported: a configuration file that is not JSON.
    """
    survey = _Survey()
    survey.read(directory)
    return survey.found


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every key as it stands, twice if it stands twice."""


@dataclass(slots=True)
class _Folder:
    """A part of the checkpoint that is being read."""

    path: Path
    root: Path
    name: str
    """What is put before its files' names: empty, or which base it is."""

    def named(self, file: Path) -> str:
        try:
            return f"{self.name}{file.relative_to(self.root)}"
        except ValueError:
            return f"{self.name}{file}"


@dataclass(slots=True)
class _Survey:
    found: list[Reference] = field(default_factory=list)
    _seen: set[Path] = field(default_factory=set)

    def read(self, directory: Path, name: str = "", root: Path | None = None) -> None:
        """Judges the directory and, where it is a checkpoint, all below it; a second time is none."""
        whole = any((directory / name).is_file() for name in _CHECKPOINT)
        for path, folders, files in os.walk(directory):
            folders[:] = sorted(folder for folder in folders if whole and not _is_left_out(folder))
            real = Path(path).resolve()
            if real in self._seen:
                folders.clear()
                continue
            self._seen.add(real)
            here = _Folder(Path(path), root or directory, name)
            if (here.path / _GENERATE).is_file():
                file = here.named(here.path / _GENERATE)
                self.found.append(Reference(file, "", "is run by transformers, which looks for a file of that name"))
            for file in sorted(files):
                if file.lower().endswith(".json") and file.lower() not in _DATA:
                    self._judge_file(here, here.path / file)

    def _judge_file(self, here: _Folder, file: Path) -> None:
        content = _parsed(file)
        if file.name.lower() == "modules.json":
            for entry in content if isinstance(content, list) and not isinstance(content, _Pairs) else []:
                self._judge_module(here, file, entry)
        if file.name.lower() == "adapter_config.json":
            self._judge_adapter(here, file, content)
        try:
            self._judge(here, file, content, "")
        except RecursionError as error:
            raise CheckpointUnsupported(f"{here.named(file)}: nested too deeply; the checkpoint is damaged") from error

    def _judge_module(self, here: _Folder, file: Path, entry: Any) -> None:
        for key, value in entry if isinstance(entry, _Pairs) else []:
            if key == "type" and not (isinstance(value, str) and _OWN.fullmatch(value)):
                self._refer(here, file, key, value)
            if key == "path" and isinstance(value, str):
                self._follow(here, value)

    def _judge_adapter(self, here: _Folder, file: Path, content: Any) -> None:
        for key, value in content if isinstance(content, _Pairs) else []:
            if key == "megatron_core" and value not in (None, "megatron.core"):
                self._refer(here, file, key, value)

    def _judge(self, here: _Folder, file: Path, content: Any, above: str) -> None:
        """What may stand in any file, at any depth."""
        if isinstance(content, _Pairs):
            for key, value in content:
                self._judge_value(here, file, f"{above}{key}", key, value)
                self._judge(here, file, value, f"{above}{key}.")
        elif isinstance(content, list):
            for value in content:
                self._judge(here, file, value, above)

    def _judge_value(self, here: _Folder, file: Path, where: str, key: str, value: Any) -> None:
        if key == "auto_map" and value and not isinstance(value, (int, float)):
            self._refer(here, file, where, next(_strings(value), value))
        elif (key in ("trust_remote_code", "use_kernels") and value not in (None, False)) or (
            key == "weights_only" and value is not True
        ):
            self.found.append(Reference(here.named(file), where, f"is {json.dumps(value)}"))
        elif key == "types" and isinstance(value, _Pairs):
            self._judge_router(here, file, where, value)
        elif key == "parent_library" and not (isinstance(value, str) and _PEFT_LIBRARIES.fullmatch(value)):
            self._refer(here, file, where, value)
        elif key.endswith("attn_implementation"):
            for kernel in (text for text in _strings(value) if "/" in text):
                self._refer(here, file, where, kernel)
        elif _CLASS_KEY.search(key):
            for name in (text for text in _strings(value) if not _is_known(key, text)):
                self._refer(here, file, where, name)
        elif key == _BASE and isinstance(value, str) and value:
            self._read_base(here, file, value)
        elif key == _TOKENIZER and isinstance(value, str) and Path(value).is_dir():
            self.read(Path(value), f"{here.name}{value}: ")

    def _judge_router(self, here: _Folder, file: Path, where: str, types: _Pairs) -> None:
        """Router and Asym: names of folders and the classes of what lies in them."""
        for name, value in types:
            if isinstance(value, str) and "." in value:
                if not _OWN.fullmatch(value):
                    self._refer(here, file, f"{where}.{name}", value)
                self._follow(here, name)

    def _follow(self, here: _Folder, name: str) -> None:
        folder = here.path / name
        if folder.is_dir():
            self.read(folder, here.name, here.root)

    def _read_base(self, here: _Folder, file: Path, base: str) -> None:
        """Wherever a library may look for it; what is nowhere cannot be run."""
        named = f"{here.name}{base}: "
        beside = here.path / base
        if beside.is_dir():
            self.read(beside, named)
        revisions = [text for text in _values(_parsed(file), "revision") if isinstance(text, str) and text]
        for revision in (None, *revisions):
            try:
                self.read(find_source(base, revision).directory, named)
            except CheckpointNotFound:
                continue

    def _refer(self, here: _Folder, file: Path, key: str, value: object) -> None:
        self.found.append(Reference(here.named(file), key, f"names {_described(here.path, value)}"))


def _is_left_out(folder: str) -> bool:
    return folder in _LEFT_OUT or folder.startswith((_SNAPSHOTS, "."))


def _parsed(file: Path) -> Any:
    """None where it is no JSON and no configuration either."""
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        if "config" in file.name.lower() or file.name.lower() == "modules.json":
            raise CheckpointUnsupported(
                f"{file.parent.name}/{file.name}: not JSON ({reason_of(error)}); the checkpoint is damaged, download it"
                " again"
            ) from error
        return None


def _values(content: Any, key: str) -> list[Any]:
    return [value for name, value in content if name == key] if isinstance(content, _Pairs) else []


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value, as deep as they are."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, _Pairs):
        for _, part in value:
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _is_known(key: str, name: str) -> bool:
    """No dotted path, or one of a class that is not the checkpoint's."""
    prose = key != _TOKENIZER_CLASS and not name.startswith("torch.") and any(map(str.isspace, name))
    return prose or "." not in name or bool(_OWN.fullmatch(name) or _TORCH.fullmatch(name))


def _described(folder: Path, value: object) -> str:
    """The class, and the Python file that it would come from."""
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    repository, _, name = value.rpartition("--")
    module = name.partition(".")[0]
    if repository:
        return f"{name} of {repository}"
    beside = [place for place in (folder, *folder.parents[:2]) if (place / f"{module}.py").is_file()]
    return f"{value} ({module}.py next to it)" if module and beside else value
