"""Text -> tokens and back, for callers who want to see them. Bounded as all tokenising is; nothing is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import DeadlineExceeded, InvalidInput
from .models.model import Model
from .results import ReadingOptions
from .text.inputs import count_characters
from .text.pieces import TokenisedText, decoded, tokenised
from .text.stage import TextStage
from .text.token_ids import TokenIds, check_texts

T = TypeVar("T")


class TokenCalls:
    """Tokenises and decodes on the engine's text threads. Belongs to one event loop."""

    def __init__(self, stage: TextStage) -> None:
        self._stage = stage

    async def tokenize(
        self,
        model: Model,
        texts: Sequence[str],
        options: ReadingOptions,
        timeout_s: float | None,
        add_special_tokens: bool,
    ) -> list[TokenisedText]:
        """The tokens of each text; see ``Engine.tokenize``."""
        if not texts:
            raise InvalidInput.empty("texts")
        if check_texts(texts, "texts[{}]"):
            raise InvalidInput("texts", "token ids have been tokenised already; send text")
        prompt = model.prompt(options.prompt_name, options.prompt)
        encoder = model.encoder

        def work() -> list[TokenisedText]:
            return [
                tokenised(encoder.tokenizer, f"{prompt}{text}", add_special_tokens=add_special_tokens) for text in texts
            ]

        characters = count_characters(texts) + len(prompt) * len(texts)
        return await self._run(work, characters, options.caller, timeout_s)

    async def decode(
        self,
        model: Model,
        texts: Sequence[TokenIds],
        options: ReadingOptions,
        timeout_s: float | None,
        skip_special_tokens: bool,
    ) -> list[str]:
        """The text of each list of ids; see ``Engine.decode``."""
        if not texts:
            raise InvalidInput.empty("ids")
        encoder = model.encoder
        for index, ids in enumerate(texts):
            ids.check(encoder.vocabulary.rows, f"ids[{index}]")

        def work() -> list[str]:
            return [decoded(encoder.tokenizer, ids, skip_special_tokens=skip_special_tokens) for ids in texts]

        return await self._run(work, count_characters(texts), options.caller, timeout_s)

    async def _run(self, work: Callable[[], T], characters: int, caller: str, timeout_s: float | None) -> T:
        if timeout_s is not None and timeout_s <= 0:
            raise DeadlineExceeded(f"timeout_s: {timeout_s} leaves no time; allow more")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._stage.run(work, characters, caller)
        except TimeoutError:
            raise DeadlineExceeded(f"not done within {timeout_s:.3f} s; allow more time or send less") from None
