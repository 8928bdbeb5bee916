"""What a manifest says, in the terms of the engine: kind, activation, rules for text."""

from __future__ import annotations

import math

from pairwire.v1 import embedding_pb2, manifest_pb2, scoring_pb2

from ...errors import PackageInvalid
from ..kinds import InputType, ModelKind
from ..outputs.heads import Activation, Head
from ..text.encoder import TextRules
from ..text.pair_template import PairTemplate, Slot

KINDS = {
    manifest_pb2.MODEL_KIND_CROSS_ENCODER: ModelKind.CROSS_ENCODER,
    manifest_pb2.MODEL_KIND_BI_ENCODER: ModelKind.BI_ENCODER,
    manifest_pb2.MODEL_KIND_SPARSE_ENCODER: ModelKind.SPARSE_ENCODER,
}
ACTIVATIONS = {
    scoring_pb2.ACTIVATION_IDENTITY: Activation.IDENTITY,
    scoring_pb2.ACTIVATION_SIGMOID: Activation.SIGMOID,
    scoring_pb2.ACTIVATION_SOFTMAX: Activation.SOFTMAX,
}
"""What the wire calls them -> what the engine does: the one table, read backwards by who writes."""
_SLOTS = {
    manifest_pb2.TEMPLATE_SLOT_PROMPT: Slot.PROMPT,
    manifest_pb2.TEMPLATE_SLOT_FIRST: Slot.FIRST,
    manifest_pb2.TEMPLATE_SLOT_SECOND: Slot.SECOND,
}


INPUT_TYPES = {
    embedding_pb2.INPUT_TYPE_QUERY: InputType.QUERY,
    embedding_pb2.INPUT_TYPE_DOCUMENT: InputType.DOCUMENT,
}
WIRE_KINDS = {kind: number for number, kind in KINDS.items()}
WIRE_INPUT_TYPES = {kind: number for number, kind in INPUT_TYPES.items()}
WIRE_ACTIVATIONS = {activation: number for number, activation in ACTIVATIONS.items()}


def kind_of(manifest: manifest_pb2.ModelManifest) -> ModelKind:
    """Which calls the model serves.

    Raises:
        PackageInvalid: the manifest names a kind that this version does not know.
    """
    if manifest.kind not in KINDS:
        raise PackageInvalid(f"{manifest.name}: kind {manifest.kind} is unknown; export the model again")
    return KINDS[manifest.kind]


def head_of(manifest: manifest_pb2.ModelManifest) -> Head:
    """What turns the graph's output into scores; the identity for bi-encoders and sparse encoders.

    Raises:
        PackageInvalid: the manifest names an activation that this version does not know, or a scale that is none.
    """
    if manifest.kind != manifest_pb2.MODEL_KIND_CROSS_ENCODER:
        return Head()
    if manifest.activation not in ACTIVATIONS:
        raise PackageInvalid(f"{manifest.name}: activation {manifest.activation} is unknown; export the model again")
    scale = manifest.score_scale if manifest.HasField("score_scale") else 1.0
    if not (math.isfinite(scale) and scale and math.isfinite(manifest.score_bias)):
        raise PackageInvalid(
            f"{manifest.name}: score_scale {scale:g} and score_bias {manifest.score_bias:g} make no scores of logits;"
            " expected finite numbers and a scale other than 0: export the model again"
        )
    return Head(ACTIVATIONS[manifest.activation], scale, manifest.score_bias)


def rules_of(manifest: manifest_pb2.ModelManifest) -> TextRules:
    """The checkpoint's own rules for text.

    Raises:
        PackageInvalid: the manifest has a text template that this version does not know.
    """
    return TextRules(
        max_length=manifest.max_length,
        pad_token_id=manifest.pad_token_id,
        pad_token_type_id=manifest.pad_token_type_id,
        truncate_left=manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT,
        template=_template(manifest.template) if manifest.HasField("template") else None,
        prompt_excluded=manifest.prompt_excluded,
        empty_token_id=manifest.empty_token_id if manifest.HasField("empty_token_id") else None,
        vocab_size=manifest.vocab_size,
    )


def _template(message: manifest_pb2.TextTemplate) -> PairTemplate:
    parts: list[str | Slot] = []
    for part in message.parts:
        if part.WhichOneof("part") == "literal":
            parts.append(part.literal)
        elif part.slot in _SLOTS:
            parts.append(_SLOTS[part.slot])
        else:
            raise PackageInvalid(f"template slot {part.slot} is unknown; export the model again")
    try:
        return PairTemplate(tuple(parts), message.default_prompt, tuple(message.suffix_ids))
    except ValueError as error:
        raise PackageInvalid(f"template: {error}; export the model again") from error
