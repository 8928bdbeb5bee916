"""What a package says of a cross-encoder: form, labels, activation, prompts, from the loaded object and its files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairwire.server.engine.outputs.heads import Activation
from pairwire.server.engine.text.pair_template import PairTemplate

from ..config import AskedScore
from ..errors import CheckpointUnsupported
from . import adapter_layers, chat_templates
from .source import read_json
from .ways import Tracer, Way

if TYPE_CHECKING:
    from .tracing import Traceable

_SCORES = "scores"
_ACTIVATIONS = {"Identity": Activation.IDENTITY, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}


class Form(Enum):
    """What computes the logits."""

    CLASSIFIER = "an encoder with a classification head"
    DECODER_CLASSIFIER = "a decoder with a classifier over its last token"
    LANGUAGE_MODEL = "a language model and the logits of its answers"
    MODULES = "an encoder or decoder with pooling and dense modules"


def form_of(reference: Any) -> Form:
    """What the modules of the loaded ``CrossEncoder`` are.

    Raises:
        CheckpointUnsupported: they are nothing that is exported; the sentence says why.
    """
    from . import decoders, modular

    first, *rest = reference
    unread = [name for name in first.modality_config if name not in ("text", "message")]
    if unread or "text" not in first.modality_config:
        raise CheckpointUnsupported(f"it reads {', '.join(map(str, first.modality_config))}; expected text only")
    if first.transformer_task == "text-generation":
        return _language_model(first, rest)
    if rest:
        modular.check(list(reference))
        return Form.MODULES
    if not type(first.model).__name__.endswith("ForSequenceClassification"):
        raise CheckpointUnsupported(f"{type(first.model).__name__} gives no classification logits")
    if not hasattr(first.model, "score") or not decoders.is_decoder(first.model):
        return Form.CLASSIFIER
    decoders.check(first.model)
    if first.tokenizer is not None:
        decoders.check_classifier(first.model, first.tokenizer.pad_token_id)
    return Form.DECODER_CLASSIFIER


def template_of(reference: Any) -> PairTemplate | None:
    """How a pair becomes one text; None where the tokenizer joins two.

    Raises:
        CheckpointUnsupported: its chat template is more than literal text around the texts of a pair.
    """
    if not chat_templates.has_template(reference[0]):
        return None
    if reference.tokenizer.truncation_side != "right":
        raise CheckpointUnsupported("a chat template that is cut at its beginning (truncation_side left); not exported")
    prompts = _prompts(reference)
    return chat_templates.read_template(reference[0], list(prompts.values()), prompts.get(_default(reference), ""))


def traceable(reference: Any, way: Way) -> Traceable | None:
    """What gives the logits; None for a classifier that optimum exports as it is.

    ``reference`` is a copy in the attention of the way, which the module takes apart.
    """
    from . import decoders, modular, tracing

    form, first = form_of(reference), reference[0]
    inputs = tracing.inputs_of(first)
    if form is Form.CLASSIFIER:
        if way.tracer is Tracer.OPTIMUM:
            return None
        return tracing.Traceable(tracing.Chain([first], inputs, _SCORES), inputs, tracing.prepared(first.model, way))
    if form is Form.MODULES and not decoders.is_decoder(first.model):
        context = tracing.prepared(first.model, way)
        return tracing.Traceable(modular.chain(list(reference), inputs), inputs, context)
    inputs = ("input_ids", "attention_mask")
    if form is Form.MODULES:
        return tracing.Traceable(modular.chain(list(reference), inputs), inputs)
    if form is Form.DECODER_CLASSIFIER:
        return tracing.Traceable(decoders.classifier(first.model), inputs)
    score = reference[1]
    scorer = decoders.logit_scorer(first.model, score.true_token_id, score.false_token_id)
    return tracing.Traceable(scorer, inputs)


def warnings_of(reference: Any, asked: AskedScore) -> list[str]:
    """What a person should know of the loaded ``CrossEncoder``, a sentence each."""
    form = form_of(reference)
    warnings = []
    if (
        form is Form.LANGUAGE_MODEL
        and reference[1].false_token_id is None
        and not asked.anything
        and not _scale(reference)
    ):
        warnings.append(
            "a score is the bare logit of one token, as in sentence-transformers, and means nothing by itself; what its"
            " authors make of it can be a part of the package (zerank-2: --activation sigmoid --score-scale 0.2)"
        )
    if form not in (Form.LANGUAGE_MODEL, Form.DECODER_CLASSIFIER) or chat_templates.has_template(reference[0]):
        return warnings
    return [
        *warnings,
        "a decoder without a chat template: the tokenizer joins query and document with nothing said between them, as"
        " sentence-transformers does; a reranker that was trained with a template needs it (chat_template.jinja)",
    ]


def describe(directory: Path, reference: Any) -> dict[str, Any]:
    """The fields of `Checkpoint` that cross-encoders alone have; ``reference`` is the loaded ``CrossEncoder``.

    Raises:
        CheckpointUnsupported: something that the server does not compute.
    """
    return {
        "labels": _labels(reference),
        "activation": _activation(directory, reference),
        **_scale(reference),
        "prompts": _prompts(reference),
        "default_prompt_name": _default(reference),
    }


def _language_model(first: Any, rest: list[Any]) -> Form:
    from sentence_transformers.cross_encoder.modules import LogitScore

    from . import decoders

    of_logits = bool(rest) and isinstance(rest[0], LogitScore) and rest[0].module_input_name == first.module_output_name
    if not of_logits or len(rest) > 2 or not all(map(_scales, rest[1:])):
        names = ", ".join(type(module).__name__ for module in (first, *rest))
        raise CheckpointUnsupported(
            f"modules {names}: expected a language model and a LogitScore of its logits; after it, at most a Dense of"
            " one number, from scores to scores and without an activation of its own"
        )
    decoders.check(first.model)
    decoders.check_logits(first.model)
    tokens, score = adapter_layers.bare(first.model.lm_head).out_features, rest[0]
    ids = [score.true_token_id] if score.false_token_id is None else [score.true_token_id, score.false_token_id]
    unknown = getattr(first.tokenizer, "unk_token_id", None)
    if any(not 0 <= token < tokens or token == unknown for token in ids) or len(set(ids)) < len(ids):
        raise CheckpointUnsupported(
            f"it is asked for the logits of tokens {ids}, which are no two answers of its vocabulary; a language model"
            ' without modules.json must have the tokens "yes" and "no"'
        )
    return Form.LANGUAGE_MODEL


def _scales(module: Any) -> bool:
    """Whether a module multiplies a score and adds to it, and does nothing else."""
    from sentence_transformers.base.modules import Dense

    return (
        isinstance(module, Dense)
        and (module.in_features, module.out_features) == (1, 1)
        and (module.module_input_name, module.module_output_name) == ("scores", "scores")
        and type(module.activation_function).__name__ == "Identity"
    )


def _scale(reference: Any) -> dict[str, float]:
    """The checkpoint's own scale and bias of a score: those of a Dense behind a LogitScore."""
    last = list(reference)[-1]
    if form_of(reference) is not Form.LANGUAGE_MODEL or not _scales(last):
        return {}
    bias = last.linear.bias
    return {"scale": float(last.linear.weight), "bias": 0.0 if bias is None else float(bias)}


def _labels(reference: Any) -> list[str]:
    names = {int(index): str(name) for index, name in (reference[0].config.id2label or {}).items()}
    return [names.get(index, f"LABEL_{index}") for index in range(int(reference.num_labels))]


def _prompts(reference: Any) -> dict[str, str]:
    return {name: text for name, text in reference.prompts.items() if text}


def _default(reference: Any) -> str:
    """The name of the default prompt, where it is one."""
    name = reference.default_prompt_name
    return str(name) if name and reference.prompts.get(name) else ""


def _activation(directory: Path, reference: Any) -> Activation:
    """The activation that sentence-transformers resolved, if it is one that the server computes."""
    named = _named_activation(directory)
    function = reference.activation_fn
    activation = _ACTIVATIONS.get(type(function).__name__)
    if named is not None and not named.startswith("torch."):
        raise CheckpointUnsupported(
            f"its activation is {named}; Pairwire computes Identity, Sigmoid and Softmax of torch"
        )
    if activation is None or not type(function).__module__.startswith("torch."):
        raise CheckpointUnsupported(
            f"its activation is {type(function).__name__}; Pairwire computes Identity, Sigmoid and Softmax"
        )
    if activation is Activation.SOFTMAX and function.dim not in (None, 1, -1):
        raise CheckpointUnsupported(f"its activation is a Softmax over axis {function.dim}; expected the labels' axis")
    if named is None and activation is Activation.IDENTITY and _is_multi_label(reference):
        return Activation.SIGMOID  # each label is a question of its own; the library would give bare logits
    return activation


def _is_multi_label(reference: Any) -> bool:
    kind = getattr(reference[0].config, "problem_type", None)
    return kind == "multi_label_classification" and int(reference.num_labels) > 1


def _named_activation(directory: Path) -> str | None:
    config = read_json(directory / "config.json")
    nested = config.get("sentence_transformers")
    beside = "config_sentence_transformers.json"  # which the library reads only where there is a modules.json
    names = [
        read_json(directory / beside).get("activation_fn") if (directory / "modules.json").is_file() else None,
        nested.get("activation_fn") if isinstance(nested, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    ]
    return next((str(name) for name in names if name), None)
