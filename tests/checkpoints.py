"""Tiny random checkpoints of the architectures that Pairwire exports, saved the way their libraries save them.

Weights come from a fixed seed and are scaled so that different texts get clearly different scores. A checkpoint takes a
fraction of a second to build and is about 200 kB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import architectures, decoders
from tests.architectures import ARCHITECTURES as ARCHITECTURES

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

_POSITIONS = architectures.POSITIONS
_HIDDEN = architectures.HIDDEN


def save_cross_encoder(
    directory: Path,
    *,
    architecture: str = "bert",
    labels: int = 1,
    layers: int = 2,
    activation: str | None = None,
    legacy_activation: str | None = None,
    problem_type: str | None = None,
    seed: int = 0,
) -> Path:
    """Writes what ``AutoModelForSequenceClassification`` and ``AutoTokenizer`` load, and returns the directory.

    ``activation`` is written where sentence-transformers 4 and later keep it (config.json, "sentence_transformers"),
    ``legacy_activation`` where earlier versions kept it; both are dotted paths like
    ``torch.nn.modules.linear.Identity``.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = architectures.tokenizer(architecture)
    config = architectures.config(architecture, tokenizer, layers=layers)
    names = ["contradiction", "entailment", "neutral"] if labels == 3 else [f"LABEL_{index}" for index in range(labels)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = problem_type
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
    architecture: str = "bert",
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    dense: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    include_prompt: bool = True,
    truncate_dim: int | None = None,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
    max_length: int = _POSITIONS,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a sentence-transformers directory (modules.json, an encoder inside) and returns it.

    ``dense`` adds a projection to that many dimensions; ``before`` and ``after`` are modules around the pooling;
    ``max_length`` is counted in tokens.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import AutoModel

    tokenizer = architectures.tokenizer(architecture)
    torch.manual_seed(seed)
    model = AutoModel.from_config(architectures.config(architecture, tokenizer, layers=layers))
    plain = directory.with_name(directory.name + "-transformer")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modes = pooling if isinstance(pooling, str) else tuple(pooling)
    modules: list[Any] = [Transformer(str(plain), max_seq_length=max_length), *before]
    modules += [Pooling(_HIDDEN, pooling_mode=modes, include_prompt=include_prompt), *after]
    if dense is not None:
        modules.append(Dense(modules[-1].get_embedding_dimension(), dense))
    if normalize:
        modules.append(Normalize())
    encoder = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=dict(prompts) if prompts else None,
        default_prompt_name=default_prompt_name,
        truncate_dim=truncate_dim,
    )
    encoder.save(str(directory), create_model_card=False)
    return directory


def save_modular_cross_encoder(
    directory: Path,
    *,
    architecture: str = "bert",
    pooling: str | Sequence[str] = "cls",
    hidden: int | None = 24,
    labels: int = 1,
    normalize: bool = False,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a cross-encoder of modules (Transformer, Pooling, Dense ...) and returns its directory.

    ``hidden`` is the width of a first Dense with Tanh, if any; the last one gives the scores of ``labels``. A decoder
    (`tests.decoders`) is tokenised without a chat template.
    """
    import torch
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling, Transformer
    from transformers import AutoModel

    torch.manual_seed(seed)
    if architecture in decoders.DECODERS:
        tokenizer = decoders.tokenizer(template=None)
        config = decoders.config(architecture, tokenizer, layers=layers)
    else:
        tokenizer = architectures.tokenizer(architecture)
        config = architectures.config(architecture, tokenizer, layers=layers)
    plain = directory.with_name(directory.name + "-transformer")
    AutoModel.from_config(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modes = pooling if isinstance(pooling, str) else tuple(pooling)
    modules: list[Any] = [Transformer(str(plain)), Pooling(_HIDDEN, pooling_mode=modes)]
    if normalize:
        modules += [LayerNorm(modules[-1].get_embedding_dimension()), Normalize()]
    width = modules[1].get_embedding_dimension()
    if hidden is not None:
        modules.append(Dense(width, hidden))
        width = hidden
    modules.append(Dense(width, labels, activation_function=None, module_output_name="scores"))
    _spread_dense(modules)
    return _saved(directory, modules, prompts, default_prompt_name)


def save_decoder_reranker(
    directory: Path,
    *,
    architecture: str = "qwen3",
    template: str | None = decoders.TEMPLATE,
    modules: bool = False,
    true_token: str = "yes",
    false_token: str | None = "no",
    scale: tuple[float, float] | None = None,
    identity: bool = False,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a language model whose answer "yes" is the score, as Qwen3-Reranker is, and returns the directory.

    Without ``modules`` it is a plain ``...ForCausalLM``; with them, or with prompts, sentence-transformers has saved it
    and says which tokens are read. ``scale`` adds a Dense that multiplies a score and adds to it; ``identity`` says
    that there is no activation.
    """
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore
    from transformers import AutoModelForCausalLM

    tokenizer = decoders.tokenizer(template=template)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(decoders.config(architecture, tokenizer, layers=layers))
    yes, no = tokenizer.convert_tokens_to_ids([true_token, false_token or "no"])
    states = decoders.last_states(model.model, tokenizer, PAIRS)
    with torch.no_grad():
        rows = model.lm_head.weight
        spread = decoders.spread((rows[yes] - rows[no])[None], states)[0]
        rows[yes], rows[no] = spread / 2, -spread / 2
    plain = modules or prompts
    target = directory.with_name(directory.name + "-transformer") if plain else directory
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if not plain:
        return directory
    answers = [None if token is None else tokenizer.convert_tokens_to_ids(token) for token in (true_token, false_token)]
    chain = [Transformer(str(target), transformer_task="text-generation"), LogitScore(*answers)]
    if scale is not None:
        chain.append(_scaling(*scale))
    activation = torch.nn.Identity() if identity else None
    return _saved(directory, chain, prompts, default_prompt_name, activation)


def _scaling(scale: float, bias: float) -> Any:
    """A module that makes ``scale * x + bias`` of a score."""
    import torch
    from sentence_transformers.base.modules import Dense

    dense = Dense(1, 1, activation_function=None, module_input_name="scores", module_output_name="scores")
    with torch.no_grad():
        dense.linear.weight.fill_(scale)
        dense.linear.bias.fill_(bias)
    return dense


def save_decoder_classifier(
    directory: Path,
    *,
    architecture: str = "qwen3",
    template: str | None = None,
    labels: int = 1,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Writes a decoder with a classifier over its last token (``...ForSequenceClassification``), and returns it."""
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = decoders.tokenizer(template=template)
    config = decoders.config(architecture, tokenizer, layers=layers)
    config.num_labels = labels
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.copy_(
            decoders.spread(model.score.weight, decoders.last_states(model.model, tokenizer, PAIRS))
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _spread_dense(modules: Sequence[Any]) -> None:
    """As ``_spread_scores``, of a cross-encoder of modules."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(modules=list(modules), device="cpu")
    logits = model.predict(list(PAIRS), activation_fn=torch.nn.Identity(), convert_to_tensor=True)
    logits = logits.reshape(len(PAIRS), -1)
    scale = 1.5 / logits.std(dim=0)
    with torch.no_grad():
        modules[-1].linear.weight.mul_(scale[:, None])
        modules[-1].linear.bias.sub_(logits.mean(dim=0)).mul_(scale)


def _saved(
    directory: Path,
    modules: Sequence[Any],
    prompts: Mapping[str, str] | None,
    default_prompt_name: str | None,
    activation: Any = None,
) -> Path:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        modules=list(modules),
        device="cpu",
        prompts=dict(prompts) if prompts else None,
        default_prompt_name=default_prompt_name,
        activation_fn=activation,
    )
    encoder.save_pretrained(str(directory), create_model_card=False)
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


def save_sentencepiece_cross_encoder(directory: Path, *, seed: int = 0) -> Path:
    """Writes an XLM-RoBERTa cross-encoder with a sentencepiece model, no tokenizer.json, and returns the directory."""
    import io

    import sentencepiece
    import torch
    from transformers import AutoModelForSequenceClassification, XLMRobertaConfig, XLMRobertaTokenizer

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=pieces, vocab_size=90, minloglevel=2
    )
    directory.mkdir()
    (directory / "sentencepiece.bpe.model").write_bytes(pieces.getvalue())
    tokenizer: Any = XLMRobertaTokenizer(str(directory / "sentencepiece.bpe.model"), model_max_length=_POSITIONS)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=_POSITIONS + 2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
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
