"""TEI's ``/tokenize`` and ``/decode``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ....engine.off_loop import off_loop
from ....engine.results import ReadingOptions
from ....engine.text.pieces import TokenisedText
from ....engine.text.token_ids import TokenIds
from ....errors import InvalidInput
from ....rpc.caller import caller
from ....rpc.texts import decode_id_lists, decode_text, decode_texts
from ...roles import Role
from ..answers import Answer, encode
from ..reading import JsonReader
from ..routes import Asked, Route, Services
from ..texts import naming
from .common import TEI, EmptyInput
from .types import DecodeRequest, Token, TokenizeRequest

_INLINE_TOKENS = 2000


class Tokens:
    """Texts -> tokens, and back."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        tokens = list[list[Token]]
        reader = JsonReader(TokenizeRequest)
        yield Route.post("/tokenize", self.tokenize, TEI, "Tokens of texts (TEI)", reader, tokens)
        yield Route.post("/decode", self.decode, TEI, "Texts of token ids (TEI)", JsonReader(DecodeRequest), list[str])

    async def tokenize(self, asked: Asked[TokenizeRequest]) -> Answer:
        """All tokens of each text, uncut."""
        request, limits = asked.body, self._services.limits
        found = self._services.find(asked, Role.INFO, None)
        if isinstance(request.inputs, str):
            texts, names = [decode_text("inputs", request.inputs, limits)], {"texts[0]": "inputs"}
        else:
            texts = await off_loop(asked.large, decode_texts, "inputs", request.inputs, limits)
            names = {"texts": "inputs"}
        with naming(names):
            tokenised = await self._services.engine().tokenize(
                texts,
                model=found.name,
                add_special_tokens=request.add_special_tokens is not False,
                options=ReadingOptions(prompt_name=request.prompt_name, caller=caller()),
                timeout_s=asked.timeout_s,
            )
        many = sum(map(len, tokenised)) > _INLINE_TOKENS
        return Answer(await off_loop(many, _encoded, tokenised))

    async def decode(self, asked: Asked[DecodeRequest]) -> Answer:
        """The text of each list of ids."""
        request, limits = asked.body, self._services.limits
        found = self._services.find(asked, Role.INFO, None)
        given = await off_loop(asked.large, _id_lists, request.ids)
        ids: list[TokenIds] = await off_loop(asked.large, decode_id_lists, "ids", given, limits)
        with naming({"ids": "ids"}):
            texts = await self._services.engine().decode(
                ids,
                model=found.name,
                skip_special_tokens=request.skip_special_tokens is not False,
                options=ReadingOptions(caller=caller()),
                timeout_s=asked.timeout_s,
            )
        return Answer(await off_loop(asked.large, encode, texts))


def _id_lists(ids: Sequence[int | list[int]]) -> list[list[int]]:
    if not ids:
        raise EmptyInput("ids", "empty; give token ids")
    lists = [each for each in ids if isinstance(each, list)]
    if len(lists) == len(ids):
        return lists
    if lists:
        raise InvalidInput("ids", "ids and lists of ids in one list; give one or the other")
    return [[each for each in ids if isinstance(each, int)]]


def _encoded(tokenised: Sequence[TokenisedText]) -> bytes:
    return encode([_tokens(each) for each in tokenised])


def _tokens(text: TokenisedText) -> list[Token]:
    found: list[Token] = []
    for index, (begin, end) in enumerate(text.byte_spans()):
        special = text.special[index]
        found.append(
            {
                "id": text.ids[index],
                "text": text.covered(index),
                "special": special,
                "start": None if special else begin,
                "stop": None if special else end,
            }
        )
    return found
