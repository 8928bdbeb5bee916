"""Are the files of a checkpoint whole? Looked at before a library reads them: its own words would lead elsewhere.

transformers says "Unrecognized processing class" of a tokenizer.json that is cut off, and "Error while deserializing
header" of a git-lfs pointer. What is read here is data: nothing is imported or unpickled.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from pairwire.server.reasons import reason_of

from ..errors import CheckpointUnsupported
from . import weight_files

_OBJECTS = (
    "adapter_config.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
_LISTS = ("modules.json",)
_TOKENIZER = "tokenizer.json"
_SENTENCEPIECE = "*.model"
_NO_TOKENIZER = "Unrecognized processing class"


def check_files(directory: Path) -> None:
    """Checks weights, JSON and tokenizer of a checkpoint or adapter, and of the folders of its modules.

    Raises:
        CheckpointUnsupported: which file is damaged, or what it needs.
    """
    weight_files.check(directory)
    for folder in (directory, *sorted(path for path in directory.iterdir() if path.is_dir())):
        for name in (*_OBJECTS, *_LISTS):
            _check_json(directory, folder / name)
        _check_tokenizer(directory, folder)


def explain(directory: Path, error: Exception, *, trust_remote_code: bool = False) -> str:
    """Why sentence-transformers cannot load a checkpoint, in a line.

    Of any tokenizer that fails it says only that there is no "processing class"; the tokenizer's own words tell more.
    """
    reason = reason_of(error)
    if _NO_TOKENIZER not in reason:
        return reason
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    configured = [path.parent for path in sorted(directory.glob("*/tokenizer_config.json"))]
    folder = (directory, *configured)[-1]
    try:
        load(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as own:
        return f"its tokenizer cannot be loaded: {reason_of(own)}"
    return reason


def _check_json(directory: Path, path: Path) -> None:
    if not path.is_file():
        return
    named = _named(directory, path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointUnsupported(
            f"{named}: not JSON ({reason_of(error)}); the checkpoint is damaged, download it again"
        ) from error
    expected, word = (list, "list") if path.name in _LISTS else (dict, "object")
    if not isinstance(content, expected):
        raise CheckpointUnsupported(f"{named}: expected a JSON {word}, got {type(content).__name__}")


def _check_tokenizer(directory: Path, folder: Path) -> None:
    path = folder / _TOKENIZER
    if path.is_file():
        from tokenizers import Tokenizer

        try:
            Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CheckpointUnsupported(
                f"{_named(directory, path)}: not a tokenizer that this version of tokenizers reads"
                f" ({reason_of(error)}); the file is damaged or too new, download it again"
            ) from error
        return
    models = [found for found in sorted(folder.glob(_SENTENCEPIECE)) if found.is_file()]
    if models and importlib.util.find_spec("sentencepiece") is None:
        raise CheckpointUnsupported(
            f"{_named(directory, models[0])}: a sentencepiece model without a tokenizer.json; the package sentencepiece"
            " converts it, install it with: pip install 'pairwire[export]'"
        )


def _named(directory: Path, path: Path) -> str:
    return f"{directory.name}/{path.relative_to(directory)}"
