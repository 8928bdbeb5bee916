"""A tokenizer whose rows have no token types: what a model reads that is given none."""

from __future__ import annotations

import json
from typing import Any


def without(tokenizer: str) -> str:
    """The content of a tokenizer.json whose post-processor gives every token the type 0."""
    content: dict[str, Any] = json.loads(tokenizer)
    processor = content.get("post_processor")
    if processor:
        content["post_processor"] = _untyped(processor)
    return json.dumps(content, ensure_ascii=False)


def _untyped(processor: dict[str, Any]) -> dict[str, Any]:
    kind = processor["type"]
    if kind == "Sequence":
        return processor | {"processors": [_untyped(each) for each in processor["processors"]]}
    if kind == "TemplateProcessing":
        return processor | {name: [_piece(piece) for piece in processor[name]] for name in ("single", "pair")}
    if kind == "BertProcessing":
        return _bert(processor)
    return processor  # RobertaProcessing and ByteLevel know no other type


def _piece(piece: dict[str, Any]) -> dict[str, Any]:
    return {name: value | {"type_id": 0} for name, value in piece.items()}


def _bert(processor: dict[str, Any]) -> dict[str, Any]:
    """As a template, which says what it writes."""
    tokens = {name: processor[name] for name in ("cls", "sep")}
    special = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in tokens.values()}

    def piece(name: str) -> dict[str, Any]:
        if name in tokens:
            return {"SpecialToken": {"id": tokens[name][0], "type_id": 0}}
        return {"Sequence": {"id": name, "type_id": 0}}

    return {
        "type": "TemplateProcessing",
        "single": [piece(name) for name in ("cls", "A", "sep")],
        "pair": [piece(name) for name in ("cls", "A", "sep", "B", "sep")],
        "special_tokens": special,
    }
