"""Tiny checkpoints that bring code of their own (`tests.own_code`), in the shape of published ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import architectures, checkpoints, decoders

_CODE = Path(__file__).parent / "own_code"


@dataclass(frozen=True, slots=True)
class Shape:
    """A file of code, its classes, and what a configuration of 32 units in 2 layers is called there."""

    file: str
    config: str
    model: str
    classifier: str = ""
    tokenizer: str = "bert"
    sizes: Mapping[str, object] = field(default_factory=dict)


SHAPES: dict[str, Shape] = {
    "new": Shape("new_model", "NewConfig", "NewModel", "NewForSequenceClassification", "xlm-roberta"),
    "nomic": Shape(
        "nomic_model",
        "NomicBertConfig",
        "NomicBertModel",
        sizes={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 128, "initializer_range": 0.12},
    ),
    "alibi": Shape("alibi_model", "JinaBertConfig", "JinaBertModel", "JinaBertForSequenceClassification"),
    "bidirectional": Shape(
        "bidirectional_model",
        "LlamaBidirectionalConfig",
        "LlamaBidirectionalModel",
        "LlamaBidirectionalForSequenceClassification",
        "decoder",
        sizes={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 320,
            "initializer_range": 0.12,
            "bos_token_id": None,
        },
    ),
    "flash": Shape(
        "flash_model",
        "XLMRobertaFlashConfig",
        "XLMRobertaModel",
        "XLMRobertaForSequenceClassification",
        "xlm-roberta",
    ),
    "looped": Shape("looped_model", "LoopedConfig", "LoopedModel"),
}
"""By a name of ours."""


def save_cross_encoder(directory: Path, shape: str, *, seed: int = 0, **config: object) -> Path:
    """Writes a reranker with code of its own, and returns the directory; ``config`` goes to its configuration."""
    import torch

    found, tokenizer = SHAPES[shape], _tokenizer(shape)
    model = _model(directory, found, "AutoModelForSequenceClassification", found.classifier, tokenizer, seed, config)
    rows = tokenizer(*zip(*checkpoints.PAIRS, strict=True), padding=True, return_tensors="pt")
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        logits = model.eval()(**rows).logits
        scale = 1.5 / logits.std(dim=0)
        last.weight.mul_(scale[:, None])
        if last.bias is not None:
            last.bias.sub_(logits.mean(dim=0)).mul_(scale)
    _save(directory, model, tokenizer, found, {"AutoModelForSequenceClassification": found.classifier})
    return directory


def save_bi_encoder(
    directory: Path, shape: str, *, pooling: str = "mean", dense: int | None = None, seed: int = 0, **config: object
) -> Path:
    """Writes an embedder with code of its own as sentence-transformers saves it, and returns the directory."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    found, tokenizer = SHAPES[shape], _tokenizer(shape)
    plain = directory.with_name(directory.name + "-transformer")
    model = _model(plain, found, "AutoModel", found.model, tokenizer, seed, config)
    _save(plain, model, tokenizer, found, {"AutoModel": found.model})
    modules: list[Any] = [SentenceTransformer(str(plain), device="cpu", trust_remote_code=True)[0]]
    modules.append(Pooling(architectures.HIDDEN, pooling_mode=pooling))
    if dense is not None:
        modules.append(Dense(architectures.HIDDEN, dense))
    SentenceTransformer(modules=[*modules, Normalize()], device="cpu").save(str(directory), create_model_card=False)
    # As it is published: the code beside the configuration, and nothing that says whom to trust.
    shutil.copy(_CODE / f"{found.file}.py", directory)
    checkpoints.edit_json(directory / "config.json", auto_map=_auto_map(found, {"AutoModel": found.model}))
    checkpoints.edit_json(directory / "sentence_bert_config.json", model_kwargs=None, config_kwargs=None)
    return directory


def _tokenizer(shape: str) -> Any:
    name = SHAPES[shape].tokenizer
    return decoders.tokenizer(template=None) if name == "decoder" else architectures.tokenizer(name)


def _model(
    directory: Path,
    shape: Shape,
    automatic: str,
    name: str,
    tokenizer: Any,
    seed: int,
    config: Mapping[str, object],
) -> Any:
    """A random model whose class was imported as transformers would."""
    import torch
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    directory.mkdir(parents=True)
    shutil.copy(_CODE / f"{shape.file}.py", directory)
    described: Any = get_class_from_dynamic_module(f"{shape.file}.{shape.config}", directory)
    family: Any = get_class_from_dynamic_module(f"{shape.file}.{name}", directory)
    sizes = dict(shape.sizes) | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    labels = {"num_labels": 1} if "Sequence" in automatic else {}
    torch.manual_seed(seed)
    return family(described(**sizes | labels | dict(config)))


def _save(directory: Path, model: Any, tokenizer: Any, shape: Shape, classes: Mapping[str, str]) -> None:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    checkpoints.edit_json(directory / "config.json", auto_map=_auto_map(shape, classes))


def _auto_map(shape: Shape, classes: Mapping[str, str]) -> dict[str, str]:
    return {name: f"{shape.file}.{value}" for name, value in {"AutoConfig": shape.config, **classes}.items()}
