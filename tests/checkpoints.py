"""Tiny random checkpoints of the architectures that Pairwire exports, saved the way their libraries save them.

Weights come from a fixed seed and are scaled so that different texts get clearly different scores. A checkpoint takes a
fraction of a second to build and is about 200 kB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEXTS: tuple[str, ...] = (
    "a cat sleeps on the warm mat",
    "the dog runs through the park in the rain",
    "how do I bake bread without yeast?",
    "mix flour, water and baking soda, then bake the bread for forty minutes",
    "the river floods the valley every spring",
    "Zwei Hunde laufen durch den Park",
    "le chat dort sur le tapis",
    "ok",
    "the quick brown fox jumps over the lazy dog and then it sleeps near the river until the rain stops",
    "prices rose by 3.5 % in the second quarter, more than most analysts had expected",
)
"""Texts that the tokenizers below cut into sensible pieces."""

PAIRS: tuple[tuple[str, str], ...] = (
    (TEXTS[0], TEXTS[6]),
    (TEXTS[1], TEXTS[5]),
    (TEXTS[2], TEXTS[3]),
    (TEXTS[2], TEXTS[4]),
    (TEXTS[4], TEXTS[8]),
    (TEXTS[7], TEXTS[9]),
)
"""Pairs of ``TEXTS``: related, half related and unrelated, of unlike lengths."""

ARCHITECTURES: tuple[str, ...] = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
"""What ``save_cross_encoder`` builds."""

_POSITIONS = 128
_HIDDEN = 32


def save_cross_encoder(
    directory: Path,
    *,
    architecture: str = "bert",
    labels: int = 1,
    layers: int = 2,
    activation: str | None = None,
    legacy_activation: str | None = None,
    seed: int = 0,
) -> Path:
    """Writes what ``AutoModelForSequenceClassification`` and ``AutoTokenizer`` load, and returns the directory.

    ``activation`` is written where sentence-transformers 4 and later keep it (config.json, "sentence_transformers"),
    ``legacy_activation`` where earlier versions kept it; both are dotted paths like
    ``torch.nn.modules.linear.Identity``.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = _tokenizer(architecture)
    config = _config(architecture, tokenizer, layers=layers)
    names = ["contradiction", "entailment", "neutral"] if labels == 3 else [f"LABEL_{index}" for index in range(labels)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    if activation is not None:
        config.sentence_transformers = {"activation_fn": activation, "version": "5.0.0"}
    if legacy_activation is not None:
        config.sbert_ce_default_activation_function = legacy_activation
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    _spread_scores(model, tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_bi_encoder(
    directory: Path,
    *,
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    dense: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    max_length: int = _POSITIONS,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a sentence-transformers directory (modules.json, BERT inside) and returns it.

    ``dense`` adds a projection to that many dimensions; ``max_length`` is counted in tokens.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import AutoModel

    tokenizer = _tokenizer("bert")
    torch.manual_seed(seed)
    model = AutoModel.from_config(_config("bert", tokenizer, layers=layers))
    plain = directory.with_name(directory.name + "-transformer")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modes = pooling if isinstance(pooling, str) else tuple(pooling)
    modules: list[Any] = [Transformer(str(plain), max_seq_length=max_length), Pooling(_HIDDEN, pooling_mode=modes)]
    if dense is not None:
        modules.append(Dense(modules[-1].get_embedding_dimension(), dense))
    if normalize:
        modules.append(Normalize())
    encoder = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=dict(prompts) if prompts else None,
        default_prompt_name=default_prompt_name,
    )
    encoder.save(str(directory), create_model_card=False)
    return directory


def save_adapter(directory: Path, base: Path, *, seed: int = 0) -> Path:
    """Writes a LoRA adapter (adapter_config.json, adapter_model.safetensors) for a cross-encoder over ``base``.

    ``base`` is the directory of a checkpoint; the adapter names it and brings its own classifier.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=4,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "classifier" in name and parameter.ndim == 2:
                parameter.normal_(std=0.5)
    adapted.save_pretrained(str(directory))
    (directory / "README.md").unlink(missing_ok=True)
    return directory


def edit_json(path: Path, **changes: object) -> None:
    """Sets keys of a JSON object in a file; None removes a key."""
    content = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        content.pop(key, None)
        if value is not None:
            content[key] = value
    path.write_text(json.dumps(content))


def _spread_scores(model: Any, tokenizer: Any) -> None:
    """Scales the last layer: the logits of ``PAIRS`` get mean 0 and deviation 1.5, so that scores fill the sigmoid."""
    import torch

    rows = tokenizer([a for a, _ in PAIRS], [b for _, b in PAIRS], padding=True, return_tensors="pt")
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        logits = model.eval()(**rows).logits
        scale = 1.5 / logits.std(dim=0)
        last.weight.mul_(scale[:, None])
        last.bias.sub_(logits.mean(dim=0)).mul_(scale)


def _config(architecture: str, tokenizer: Any, *, layers: int) -> Any:
    from transformers import BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig, XLMRobertaConfig

    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if architecture == "distilbert":
        return DistilBertConfig(
            **common,
            dim=_HIDDEN,
            hidden_dim=64,
            n_layers=layers,
            n_heads=4,
            max_position_embeddings=_POSITIONS,
            initializer_range=0.12,
        )
    common |= {"hidden_size": _HIDDEN, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
    common |= {"initializer_range": 0.12}
    if architecture in ("roberta", "xlm-roberta"):
        # Positions start after the pad id, so two more are needed than a row has tokens (514 for 512 in the real ones).
        family = RobertaConfig if architecture == "roberta" else XLMRobertaConfig
        special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        return family(**common, **special, max_position_embeddings=_POSITIONS + 2, type_vocab_size=1)
    if architecture == "electra":
        return ElectraConfig(**common, embedding_size=16, max_position_embeddings=_POSITIONS)
    if architecture == "bert":
        return BertConfig(**common, max_position_embeddings=_POSITIONS)
    raise ValueError(f"architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}")


def _tokenizer(architecture: str) -> Any:
    """A fast tokenizer of the architecture's own class."""
    from transformers import (
        BertTokenizerFast,
        DistilBertTokenizerFast,
        ElectraTokenizerFast,
        RobertaTokenizerFast,
        XLMRobertaTokenizerFast,
    )

    if architecture == "roberta":
        return RobertaTokenizerFast(tokenizer_object=_frozen("byte_level_bpe"), model_max_length=_POSITIONS)
    if architecture == "xlm-roberta":
        return XLMRobertaTokenizerFast(tokenizer_object=_frozen("unigram"), model_max_length=_POSITIONS)
    families = {"bert": BertTokenizerFast, "distilbert": DistilBertTokenizerFast, "electra": ElectraTokenizerFast}
    return families[architecture](tokenizer_object=_frozen("word_piece"), model_max_length=_POSITIONS)


def _frozen(name: str) -> Any:
    """A tokenizer of a few hundred tokens, trained once on ``TEXTS`` and ``PAIRS`` with the `tokenizers` library.

    Not trained anew on every run: its trainers break ties at random, and with other ids the random weights score anew.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(__file__).parent / "tokenizers" / f"{name}.json"))
