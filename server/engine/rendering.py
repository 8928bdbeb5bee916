"""How a decoder's prompt is made of a pair: literal text and slots, in order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Slot(Enum):
    """What a place of the template is filled with."""

    PROMPT = "prompt"
    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """A pair becomes one text, which is tokenised as a whole: a tokenizer may merge letters across the seams."""

    parts: tuple[str | Slot, ...]
    default_prompt: str = ""
    """What fills the prompt's slot where there is no prompt."""
    suffix_ids: tuple[int, ...] = ()
    """The tokens that end every row: they are written over its last ones where it was cut."""

    def __post_init__(self) -> None:
        missing = [slot.value for slot in (Slot.FIRST, Slot.SECOND) if slot not in self.parts]
        if missing:
            raise ValueError(f"a text template without the slot {' and '.join(missing)}")

    @property
    def literal_characters(self) -> int:
        """Of its literal text."""
        return sum(len(part) for part in self.parts if isinstance(part, str))

    @property
    def characters_after_second(self) -> int | None:
        """Of the literal text after the second one; None where more than literal text follows it."""
        slots = [index for index, part in enumerate(self.parts) if isinstance(part, Slot)]
        if self.parts.count(Slot.SECOND) > 1 or self.parts[slots[-1]] is not Slot.SECOND:
            return None
        return sum(len(part) for part in self.parts[slots[-1] + 1 :] if isinstance(part, str))

    def render(self, first: str, second: str, prompt: str | None = None) -> str:
        """The text of a pair. No prompt and an empty one are the same, as in sentence-transformers."""
        texts = {Slot.PROMPT: prompt or self.default_prompt, Slot.FIRST: first, Slot.SECOND: second}
        return "".join(part if isinstance(part, str) else texts[part] for part in self.parts)
