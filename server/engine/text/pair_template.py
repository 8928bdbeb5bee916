"""How a decoder's prompt is made of a pair: literal text and slots, in order."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from enum import Enum

from ...errors import InvalidInput

MOST_CHARACTERS = 1 << 25
"""Of the texts that one call makes: more than a message can hold without repeating anything."""


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

    def check_size(self, firsts: Sequence[Sized], seconds: Sequence[Sized], prompt: str, field: str) -> None:
        """Before texts are made: a query is sent once and stands in every row, so a small message can be gigabytes.

        Raises:
            InvalidInput: more than ``MOST_CHARACTERS``; ``field`` is what the caller calls the first texts.
        """
        rows, repeated = len(seconds), len(seconds) if len(firsts) == 1 else 1
        around = self.literal_characters + len(prompt or self.default_prompt)
        total = sum(map(len, firsts)) * repeated + sum(map(len, seconds)) + around * rows
        if total > MOST_CHARACTERS:
            raise InvalidInput(
                field.format(0),
                f"{rows} pairs make {total} characters of text by this model's template, at most {MOST_CHARACTERS} may"
                " be; shorten the query, or send several smaller requests",
            )

    def render(self, first: str, second: str, prompt: str | None = None) -> str:
        """The text of a pair. No prompt and an empty one are the same, as in sentence-transformers."""
        texts = {Slot.PROMPT: prompt or self.default_prompt, Slot.FIRST: first, Slot.SECOND: second}
        return "".join(part if isinstance(part, str) else texts[part] for part in self.parts)
