"""Zero-shot classification as Hugging Face's clients ask for it: on ``/zero-shot``, and at the root by its labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ....engine.off_loop import off_loop
from ....engine.outputs.ranking import rank
from ....engine.results import ClassifyOptions, ClassifyResult
from ....engine.text.truncation import Truncation
from ....rpc.zero_shot import decode_classified
from ..answers import Answer, encode, server_timing
from ..reading import JsonReader
from ..routes import Asked, Route, Services
from ..texts import UNSET, Anything, decode, is_unset, naming
from .common import TEI, EmptyInput, headers, reading
from .types import Prediction, Reading

_OLDER_CLIENT = re.compile(r"\bhf_hub/(?:0|1\.[01])\.")
"""huggingface_hub before 1.2 reads an object of two lists, and nothing else; later ones read a list of objects."""


class ZeroShotParameters(msgspec.Struct):
    """What transformers' pipeline takes beside the text."""

    candidate_labels: list[str] | str
    """A string has commas between the labels."""
    hypothesis_template: str | None = None
    multi_label: bool | None = None
    multi_class: bool | None = None
    """What ``multi_label`` was called."""


class ZeroShotRequest(Reading, kw_only=True):
    """A text or several, and the labels that may describe them."""

    inputs: str | list[str]
    parameters: ZeroShotParameters
    model: str | None = None


class _Labelled(msgspec.Struct):
    candidate_labels: msgspec.Raw = UNSET


_INPUTS = msgspec.json.Decoder(str | list[str]).decode
_PARAMETERS = msgspec.json.Decoder(ZeroShotParameters, strict=False).decode
_LABELLED = msgspec.json.Decoder(_Labelled).decode


def has_labels(parameters: Anything) -> bool:
    """Whether a request's ``parameters`` make it one of zero-shot classification."""
    if is_unset(parameters):  # an absent one has no bytes to be read
        return False
    try:
        return not is_unset(_LABELLED(parameters).candidate_labels)
    except msgspec.DecodeError:
        return False


class ZeroShot:
    """``/zero-shot``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """The one."""
        summary = "How well labels describe texts (zero-shot classification)"
        answer = list[Prediction | list[Prediction]]
        yield Route.post("/zero-shot", self.classify, TEI, summary, JsonReader(ZeroShotRequest), answer)

    async def classify(self, asked: Asked[ZeroShotRequest]) -> Answer:
        """Labels by descending score: of a text, or of each of a list of them."""
        request = asked.body
        return await self._classified(asked, request, request.inputs, request.parameters, request.model or "")

    async def told_by_labels(self, asked: Asked[Any], inputs: Anything, parameters: Anything) -> Answer:
        """The same, of a request to the root."""
        texts = await off_loop(asked.large, decode, _INPUTS, bytes(inputs), "inputs")
        read = await off_loop(asked.large, decode, _PARAMETERS, bytes(parameters), "parameters")
        return await self._classified(asked, asked.body, texts, read, "")

    async def _classified(
        self, asked: Asked[Any], request: Reading, inputs: str | list[str], parameters: ZeroShotParameters, model: str
    ) -> Answer:
        alone = isinstance(inputs, str)
        given = [inputs] if isinstance(inputs, str) else inputs
        if not any(given):
            raise EmptyInput("inputs", "empty; give a text")
        fields = {"texts[0]": "inputs", "texts": "inputs"} if alone else {"texts": "inputs"}
        below = {name: f"parameters.{name}" for name in ("candidate_labels", "hypothesis_template")}
        template, limits = parameters.hypothesis_template, self._services.limits
        how = reading(request)
        options = ClassifyOptions(
            truncation=Truncation.ERROR if how["truncation"] is Truncation.ERROR else Truncation.ONLY_FIRST,
            truncation_direction=how["truncation_direction"],
            caller=how["caller"],
            hypothesis_template=template,
            multi_label=bool(parameters.multi_label or parameters.multi_class),
        )
        labels = _split(parameters.candidate_labels)
        with naming({**fields, **below}):
            texts, labels = await off_loop(asked.large, decode_classified, given, labels, template, limits)
            engine = self._services.engine()
            result = await engine.classify(texts, labels, model=model, options=options, timeout_s=asked.timeout_s)
        asked.model = result.model
        rows = zip(texts, result.scores, strict=True)
        older = bool(_OLDER_CLIENT.search(asked.exchange.header("user-agent")))
        answers = [_answer(scores, labels, text if older else None) for text, scores in rows]
        body = await off_loop(asked.large, encode, answers[0] if alone else answers)
        return Answer(body, headers=self._headers(asked, result, texts))

    def _headers(self, asked: Asked[Any], result: ClassifyResult, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
        found = self._services.engine().models[result.model]
        return (*headers(asked, found, texts, result.usage, result.timing), server_timing(result.timing))


def _split(labels: list[str] | str) -> list[str]:
    """Labels, or a text with commas between them, as transformers' pipeline takes it."""
    if isinstance(labels, str):
        return [label.strip() for label in labels.split(",") if label.strip()]
    return labels


def _answer(scores: Any, labels: Sequence[str], text: str | None) -> Any:
    """Best first; as two lists, with the text, for clients that read that."""
    order = rank(scores)
    if text is not None:
        return {"sequence": text, "labels": [labels[at] for at in order], "scores": scores[order]}
    return [{"score": scores[at], "label": labels[at]} for at in order]
