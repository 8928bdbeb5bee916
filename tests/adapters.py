"""PEFT adapters over tiny checkpoints, saved as their libraries save them, with what the trained object gave.

The trained object in memory is the judge: what is loaded from its directory must give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests import architectures, checkpoints

TEXTS = list(checkpoints.TEXTS)
PAIRS = [list(pair) for pair in checkpoints.PAIRS]
HIDDEN = architectures.HIDDEN
_TRAINED = ("lora_B", "lora_embedding_B", "magnitude", "ia3_", "hada_", "oft_", "vera_lambda")
"""Parts of the names of an adapter's parameters that change what it does."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A directory, and the results of the object that it was saved from."""

    directory: Path
    results: npt.NDArray[np.float64]


def lora(**options: Any) -> Any:
    """A LoRA of rank 4 on queries and values."""
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | options)


def results(model: Any) -> npt.NDArray[np.float64]:
    """What an object of sentence-transformers gives for the texts or pairs above; of pairs the logits."""
    import torch
    from sentence_transformers import CrossEncoder, SparseEncoder

    model.eval()
    if isinstance(model, CrossEncoder):
        found = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    elif isinstance(model, SparseEncoder):
        found = model.encode(TEXTS, convert_to_sparse_tensor=False)
    else:
        found = model.encode(TEXTS)
    return np.asarray(found, np.float64)


def train(model: Any, *, others: Sequence[str] = ()) -> None:
    """Moves what a training would move: the adapter, and parameters whose names contain one of ``others``."""
    import torch

    torch.manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in (*_TRAINED, *others)):
                parameter.add_(torch.randn_like(parameter) * 0.3)


def saved(model: Any, directory: Path, config: Any, *, others: Sequence[str] = ()) -> Trained:
    """Adds an adapter to an object of sentence-transformers, trains it, and lets the library save it."""
    model.add_adapter(config)
    train(model, others=("modules_to_save", "trainable_tokens", *others))
    found = results(model)
    model.save_pretrained(str(directory), create_model_card=False)
    return Trained(directory, found)


def saved_by_peft(model: Any, directory: Path, config: Any, *, tokenizer: bool = False) -> Trained:
    """The same by peft alone, around the transformers model: it saves the adapter and nothing else."""
    from peft import get_peft_model

    adapted = get_peft_model(model[0].model, config)
    train(adapted, others=("modules_to_save", "trainable_tokens"))
    found = results(model)
    adapted.save_pretrained(str(directory))
    (directory / "README.md").unlink(missing_ok=True)
    if tokenizer:
        model.tokenizer.save_pretrained(directory)
    return Trained(directory, found)


def plain(directory: Path, *, architecture: str = "bert", mlm: bool = False) -> Path:
    """A transformers model without a head, or with that of a masked language model, and its tokenizer."""
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM

    torch.manual_seed(3)
    tokenizer = architectures.tokenizer(architecture)
    classes: dict[bool, Callable[..., Any]] = {False: AutoModel.from_config, True: AutoModelForMaskedLM.from_config}
    classes[mlm](architectures.config(architecture, tokenizer, layers=2)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def encoder(base: Path, *, pooling: str = "cls", dense: int | None = None) -> Any:
    """A ``SentenceTransformer`` with modules of its own over a transformer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    modules = [Transformer(str(base)), Pooling(HIDDEN, pooling_mode=pooling)]
    if dense is not None:
        modules.append(Dense(HIDDEN, dense))
    return SentenceTransformer(modules=[*modules, Normalize()], device="cpu")


def in_folder(directory: Path) -> Path:
    """Moves the transformer of a sentence-transformers directory to 0_Transformer, as early versions saved it."""
    import json

    folder = directory / "0_Transformer"
    folder.mkdir()
    for file in list(directory.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(folder / file.name)
    modules = json.loads((directory / "modules.json").read_text())
    modules[0]["path"] = folder.name
    (directory / "modules.json").write_text(json.dumps(modules))
    return directory
