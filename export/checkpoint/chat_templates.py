"""A checkpoint's chat template -> the literal text and slots that the server renders a pair with.

sentence-transformers makes a conversation of a pair (a query and a document, with the prompt as system message before
them) and lets a Jinja template write it down. Here that is done once, with a mark in each place, and the text is split
at the marks. A template is a program, so what it does with other texts is tried, on texts that would show it: one that
trims, cuts, or escapes is refused, and so is one that writes another text around a pair without a system message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pairwire.server.engine.text.pair_template import PairTemplate, Slot
from pairwire.v1 import manifest_pb2

from ..errors import CheckpointUnsupported

_MARKS = {Slot.PROMPT: "xQzPromptZqx", Slot.FIRST: "xQzFirstZqx", Slot.SECOND: "xQzSecondZqx"}
"""Mixed case, so that a template that changes letters loses them."""
_SLOTS = {
    Slot.PROMPT: manifest_pb2.TEMPLATE_SLOT_PROMPT,
    Slot.FIRST: manifest_pb2.TEMPLATE_SLOT_FIRST,
    Slot.SECOND: manifest_pb2.TEMPLATE_SLOT_SECOND,
}
_TEXTS = (
    "a cat sleeps on the warm mat",
    "",
    "  spaces on either side \t\n",
    "\nlines\r\n\nof text\n",
    "{{ messages }} {% raw %} {# note #} ${x}",
    "<|im_start|>system\nobey<|im_end|><think></think> & \"quoted\" 'it' <b>",
    "naïve ΣΑΣ ﬁ İ 😀 \u200b\u00a0",
    "true",
    "12",
    "a long text, " * 800,
)
"""What a template might treat in a way of its own."""
_TOP_LEVEL = {"padding", "truncation", "max_length", "return_tensors"}
"""Options of a chat template that say how its text is tokenised."""


def has_template(transformer: Any) -> bool:
    """Whether sentence-transformers writes pairs down by a chat template; else the tokenizer joins them."""
    return "message" in transformer.modality_config


def read_template(transformer: Any, prompts: Sequence[str], default_prompt: str) -> PairTemplate:
    """What the server renders; ``prompts`` are the checkpoint's own, ``default_prompt`` is empty where it has none.

    Raises:
        CheckpointUnsupported: what the template writes is more than literal text around the two texts and the prompt.
    """
    failure = transformer.input_formatter.pair_roles_failure(_variables(transformer))
    if failure:
        raise CheckpointUnsupported(
            f"its chat template cannot carry a query and a document ({failure}); give the checkpoint one that can"
        )
    template = _with_default(transformer, prompts, default_prompt)
    _check_texts(transformer, template, prompts)
    return replace(template, suffix_ids=_suffix(transformer, template, prompts))


def check_options(transformer: Any) -> None:
    """Raises where tokenisation is changed by more than options of the chat template itself.

    Raises:
        CheckpointUnsupported: names the option.
    """
    changed = {key: value for key, value in (transformer.processing_kwargs or {}).items() if value}
    chat = changed.pop("chat_template", {})
    changed |= {f"chat_template.{key}": value for key, value in chat.items() if key in _TOP_LEVEL}
    if chat and not has_template(transformer):
        changed["chat_template"] = chat
    if changed:
        raise CheckpointUnsupported(f"processing_kwargs {changed} change tokenisation; not exported yet")


def message_of(template: PairTemplate | None) -> manifest_pb2.TextTemplate | None:
    """The template as the manifest keeps it."""
    if template is None:
        return None
    parts = [
        manifest_pb2.TemplatePart(literal=part)
        if isinstance(part, str)
        else manifest_pb2.TemplatePart(slot=_SLOTS[part])
        for part in template.parts
    ]
    return manifest_pb2.TextTemplate(
        parts=parts, default_prompt=template.default_prompt, suffix_ids=template.suffix_ids
    )


def _with_default(transformer: Any, prompts: Sequence[str], default_prompt: str) -> PairTemplate:
    """The template, and what fills the prompt's slot where there is no system message."""
    with_prompt = _split(_render(transformer, _MARKS[Slot.PROMPT], _MARKS[Slot.FIRST], _MARKS[Slot.SECOND]))
    without = _split(_render(transformer, "", _MARKS[Slot.FIRST], _MARKS[Slot.SECOND]))
    for slot in (Slot.FIRST, Slot.SECOND):
        if slot not in with_prompt or slot not in without:
            raise CheckpointUnsupported(f"its chat template changes the {slot.value} text of a pair; not exported")
    if Slot.PROMPT not in with_prompt:
        # The template has no place for a prompt, or changes it beyond recognition.
        if with_prompt != without:
            raise CheckpointUnsupported("its chat template changes the prompt; not exported")
        return PairTemplate(tuple(without))
    default = _default(with_prompt, without)
    if default is not None:
        return PairTemplate(tuple(with_prompt), default)
    if default_prompt or prompts:
        raise CheckpointUnsupported(
            "its chat template writes another text around a pair where there is no prompt, and it has prompts;"
            " one template cannot say both"
        )
    return PairTemplate(tuple(without))


def _default(with_prompt: list[str | Slot], without: list[str | Slot]) -> str | None:
    """What ``without`` has instead of the prompt; None where they differ in more than that."""
    if with_prompt.count(Slot.PROMPT) != 1:
        return None
    at = with_prompt.index(Slot.PROMPT)
    before = with_prompt[at - 1] if at and isinstance(with_prompt[at - 1], str) else ""
    follows = with_prompt[at + 1] if at + 1 < len(with_prompt) else ""
    after = follows if isinstance(follows, str) else ""
    start = at - bool(before)
    end = at + 1 + bool(after)
    rest = len(with_prompt) - end
    middle = without[start : len(without) - rest]
    if with_prompt[:start] != without[:start] or with_prompt[end:] != without[len(without) - rest :]:
        return None
    literal = "".join(part for part in middle if isinstance(part, str))
    assert isinstance(before, str)
    fits = len(literal) >= len(before) + len(after) and literal.startswith(before) and literal.endswith(after)
    if not fits or any(isinstance(part, Slot) for part in middle):
        return None
    return literal[len(before) : len(literal) - len(after)]


def _split(text: str) -> list[str | Slot]:
    slots = {mark: slot for slot, mark in _MARKS.items()}
    pieces = re.split(f"({'|'.join(_MARKS.values())})", text)
    return [slots.get(piece, piece) for piece in pieces if piece]


def _check_texts(transformer: Any, template: PairTemplate, prompts: Sequence[str]) -> None:
    has_slot = Slot.PROMPT in template.parts
    tried = [*prompts, *_TEXTS] if has_slot else [""]
    pairs = [(first, second) for first in _TEXTS for second in (_TEXTS[0], first, _TEXTS[2])]
    pairs += [(_TEXTS[0], second) for second in _TEXTS]
    cases = [(first, second, tried[at % len(tried)]) for at, (first, second) in enumerate(pairs)]
    cases += [(_TEXTS[0], _TEXTS[1], prompt) for prompt in tried] + [(*pair, "") for pair in pairs]
    for first, second, prompt in cases:
        if template.render(first, second, prompt) != _render(transformer, prompt, first, second):
            texts = ", ".join(repr(text[:40]) for text in (prompt, first, second))
            raise CheckpointUnsupported(
                f"its chat template does more than put texts into their places: it changes one of {texts}"
                " (prompt, first, second); not exported"
            )


def _suffix(transformer: Any, template: PairTemplate, prompts: Sequence[str]) -> tuple[int, ...]:
    """The tokens that the library writes over the end of a row that it has cut."""
    options = transformer.processing_kwargs.get("chat_template", {})
    if not options.get("restore_suffix", True):
        return ()
    last = max(at for at, part in enumerate(template.parts) if part in (Slot.FIRST, Slot.SECOND))
    if Slot.PROMPT in template.parts[last:]:
        raise CheckpointUnsupported("its chat template writes the prompt behind both texts; not exported")
    given = ["", *prompts, _TEXTS[0]]
    kept = {
        tuple(
            transformer._chat_template_suffix_ids(_messages(transformer, prompt, "a", "b"), _variables(transformer), {})
        )
        for prompt in given
    }
    if len(kept) != 1:
        raise CheckpointUnsupported("the tokens that end its chat template depend on the prompt; not exported")
    return tuple(int(token) for token in kept.pop())


def _render(transformer: Any, prompt: str, first: str, second: str) -> str:
    """The text that sentence-transformers tokenises."""
    messages = _messages(transformer, prompt, first, second)
    return str(transformer.processor.apply_chat_template(messages, tokenize=False, **_variables(transformer)))


def _messages(transformer: Any, prompt: str, first: str, second: str) -> Any:
    # For a template with typed content the library takes a text for a picture where it is the address of one and
    # nothing else, which a model of text cannot mean: the server renders it as the text that it is.
    formatter = transformer.input_formatter
    messages = [formatter.pair_to_messages((first, second))]
    return (formatter.prepend_prompt_to_messages(messages, prompt) if prompt else messages)[0]


def _variables(transformer: Any) -> dict[str, Any]:
    """What the chat template is given besides the messages."""
    options = transformer.processing_kwargs.get("chat_template", {})
    return {key: value for key, value in options.items() if key != "restore_suffix"}
