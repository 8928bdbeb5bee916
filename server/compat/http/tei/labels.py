"""TEI's ``/predict`` and ``/rerank``."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import msgspec

from ....engine.models.manifest import head_of
from ....engine.off_loop import at_once, off_loop
from ....engine.results import ModelInfo, ScoreOptions, ScoreResult, Timing, Usage
from ....errors import InvalidInput
from ....rpc.texts import decode_text, decode_texts
from ...roles import Role
from ...tei_codec import activation_for, best_first
from ..answers import Answer, encode
from ..reading import JsonReader
from ..routes import Asked, Route, Services
from ..texts import Document, decode, naming
from .common import TEI, EmptyInput, headers, reading
from .types import Prediction, PredictRequest, RankRequest

_INPUTS = msgspec.json.Decoder(str | list[str | list[str]]).decode
_PAIR = 2


class Labels:
    """Texts -> labels and scores."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """All but ``/rerank``, which others have too."""
        predictions = list[Prediction | list[Prediction]]
        reader = JsonReader(PredictRequest)
        yield Route.post("/predict", self.predict, TEI, "Labels of texts or pairs (TEI)", reader, predictions)

    async def predict(self, asked: Asked[Any]) -> Answer:
        """Labels by descending score: of one text or pair, or of each of a list of lists."""
        request: PredictRequest = asked.body
        found = self._services.find(asked, Role.PREDICT, None)
        options = _scoring(found, request)
        inputs = await off_loop(asked.large, decode, _INPUTS, bytes(request.inputs), "inputs")
        rows, alone = _rows(inputs)
        await off_loop(asked.large, self._check, rows)
        results = await self._predicted(asked, found.name, rows, options)
        predictions = await off_loop(asked.large, _predictions, results, len(rows))
        usage, timing = _together([result for _, result in results])
        texts = [text for row in rows for text in row]
        body = encode(predictions[0] if alone else predictions)
        return Answer(body, headers=headers(asked, found, texts, usage, timing))

    async def rerank(self, asked: Asked[Any]) -> Answer:
        """Texts by descending score."""
        asked.family = TEI
        request: RankRequest = asked.body
        limits = self._services.limits
        found = self._services.find(asked, Role.RERANK, None)
        options = _scoring(found, request)
        if not request.texts:
            raise EmptyInput("texts", "empty; give at least one")
        given = request.query
        query = decode_text("query", given.text if isinstance(given, Document) else given, limits)
        texts = await off_loop(asked.large, decode_texts, "texts", request.texts, limits)
        with naming({"documents": "texts"}):
            result = await self._services.engine().rerank(
                query, texts, model=found.name, options=options, timeout_s=asked.timeout_s
            )
        scores = result.scores[:, 0]
        best = best_first(scores)
        ranks: list[Any] = [{"index": index, "score": score} for index, score in zip(best, scores[best], strict=True)]
        if request.return_text:
            for each in ranks:
                each["text"] = texts[each["index"]]
        body = await off_loop(asked.large, encode, ranks)
        return Answer(body, headers=headers(asked, found, [query] * len(texts) + texts, result.usage, result.timing))

    def _check(self, rows: Sequence[Sequence[str]]) -> None:
        decode_texts("inputs", [row[0] for row in rows], self._services.limits)
        if seconds := [row[1] for row in rows if len(row) == _PAIR]:
            decode_texts("inputs", seconds, self._services.limits)

    async def _predicted(
        self, asked: Asked[Any], model: str, rows: Sequence[Sequence[str]], options: ScoreOptions
    ) -> list[tuple[list[int], ScoreResult]]:
        """Results, and to which rows theirs belong: texts and pairs are calls of their own."""
        engine, timeout_s = self._services.engine(), asked.timeout_s
        singles = [at for at, row in enumerate(rows) if len(row) < _PAIR]
        pairs = [at for at, row in enumerate(rows) if len(row) == _PAIR]
        calls: list[Awaitable[ScoreResult]] = []
        if singles:
            texts = [rows[at][0] for at in singles]
            calls.append(engine.score_texts(texts, model=model, options=options, timeout_s=timeout_s))
        if pairs:
            given = [(rows[at][0], rows[at][1]) for at in pairs]
            calls.append(engine.score(given, model=model, options=options, timeout_s=timeout_s))
        with naming({"texts": "inputs", "pairs": "inputs"}):
            results = await at_once(*map(_awaited, calls))
        return list(zip([each for each in (singles, pairs) if each], results, strict=True))


async def _awaited(call: Awaitable[ScoreResult]) -> ScoreResult:
    return await call


def _rows(inputs: str | list[str | list[str]]) -> tuple[list[list[str]], bool]:
    """Texts and pairs, and whether there is one, which was not in a list of lists."""
    if isinstance(inputs, str):
        inputs = [inputs]
    strings = [each for each in inputs if isinstance(each, str)]
    if len(strings) == len(inputs) and strings:
        rows, alone = [strings], True
    else:
        rows, alone = [[each] if isinstance(each, str) else each for each in inputs], False
    if not rows:
        raise EmptyInput("inputs", "empty; give a text, a pair [a, b], or a list of such lists")
    for index, row in enumerate(rows):
        field = "inputs" if alone else f"inputs[{index}]"
        if not 1 <= len(row) <= _PAIR:
            hint = "; a list of texts is [[a], [b], [c]]" if alone else ""
            raise InvalidInput(field, f"{len(row)} texts are neither a text nor a pair; give one or two{hint}")
        if not any(row):
            raise EmptyInput(field, "empty; give a text")
    return rows, alone


def _scoring(found: ModelInfo, request: PredictRequest | RankRequest) -> ScoreOptions:
    activation = activation_for(found, head_of(found.manifest).activation, raw_scores=bool(request.raw_scores))
    return ScoreOptions(activation=activation, **reading(request))


def _predictions(results: Sequence[tuple[list[int], ScoreResult]], rows: int) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = [[] for _ in range(rows)]
    for places, result in results:
        for at, scores in zip(places, result.scores, strict=True):
            found[at] = [{"score": scores[index], "label": result.labels[index]} for index in best_first(scores)]
    return found


def _together(results: Sequence[ScoreResult]) -> tuple[Usage, Timing]:
    """Of calls that ran side by side."""
    usages, timings = [each.usage for each in results], [each.timing for each in results]
    usage = Usage(sum(each.tokens for each in usages), sum(each.padded_tokens for each in usages), ())
    longest = Timing(
        max(each.queue_s for each in timings),
        max(each.tokenize_s for each in timings),
        max(each.compute_s for each in timings),
    )
    return usage, longest
