"""Which model answers: the models by name, and the rules for a name that is empty, unknown or of the wrong kind."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigInvalid, InvalidInput, ModelNotFound, WrongModelKind
from ..kinds import ModelKind
from ..outputs.heads import Activation
from ..outputs.nli import NliLogits
from .model import Model


class Catalog:
    """The models of an engine, in the order in which they were given.

    Raises:
        ConfigInvalid: on construction, when there is no model, or there are two of one name.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self.models: dict[str, Model] = {}
        for model in models:
            if model.name in self.models:
                raise ConfigInvalid(f"two models are named {model.name!r}; export one of them again under another name")
            self.models[model.name] = model
        if not self.models:
            raise ConfigInvalid("no model to serve; give at least one package directory")

    def resolve(self, name: str, kind: ModelKind | None) -> Model:
        """The model of that name, or, where the name is empty, the only one of the kind; None means any kind.

        Raises:
            InvalidInput: the name is empty and none or several would fit.
            ModelNotFound: no model has that name.
            WrongModelKind: it has another kind.
        """
        if not name:
            return self._only(kind)
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(f"no model {name!r} is loaded; there is {_names(self.models.values())}")
        if kind is not None and model.kind is not kind:
            does = _DOES[model.kind]
            raise WrongModelKind(
                f"model {name!r} is a {model.kind.value}: it {does}; there is {_names(self.models.values())}"
            )
        return model

    def resolve_ranker(self, name: str, activation: Activation | None) -> Model:
        """The cross-encoder of that name, if documents can be ranked by what it gives: one score each.

        Raises:
            WrongModelKind: the model gives several scores.
            InvalidInput: the activation makes every score 1.
            As ``resolve``.
        """
        model = self.resolve(name, ModelKind.CROSS_ENCODER)
        if len(model.labels) != 1:
            raise WrongModelKind(
                f"model {model.name!r} has {len(model.labels)} labels ({', '.join(model.labels)}) and no one score to"
                " rank by; score pairs with it (Score) and sort by the label that matters"
            )
        if activation is Activation.SOFTMAX:
            raise InvalidInput(
                "activation", "softmax over one label makes every score 1; use identity or sigmoid, or leave it out"
            )
        return model

    def resolve_classifier(self, name: str) -> tuple[Model, NliLogits]:
        """The cross-encoder of that name, if it knows entailment, or the only one that does where the name is empty.

        Raises:
            WrongModelKind: it does not; or, where the name is empty, none does.
            As ``resolve``.
        """
        able = [
            (model, logits)
            for model in self.models.values()
            if model.kind is ModelKind.CROSS_ENCODER and (logits := NliLogits.of(model.labels)) is not None
        ]
        if name:
            model = self.resolve(name, ModelKind.CROSS_ENCODER)
            found = [each for each in able if each[0] is model]
            missing = f"model {model.name!r} has no label that is called entailment ({', '.join(model.labels)})"
        else:
            found, missing = able, f"no model knows entailment; there is {_names(self.models.values())}"
        if not found:
            raise WrongModelKind(f"{missing}; zero-shot classification needs an NLI model, and another label beside it")
        if len(found) > 1:
            names = _names(model for model, _ in found)
            raise InvalidInput("model", f"empty, but there are several that know entailment; name one of {names}")
        return found[0]

    def _only(self, kind: ModelKind | None) -> Model:
        fitting = [model for model in self.models.values() if kind is None or model.kind is kind]
        if len(fitting) == 1:
            return fitting[0]
        of_kind = "" if kind is None else f" of kind {kind.value}"
        if fitting:
            raise InvalidInput("model", f"empty, but there are several{of_kind}; name one of {_names(fitting)}")
        raise InvalidInput("model", f"empty, and no model{of_kind} is loaded; there is {_names(self.models.values())}")


_DOES = {
    ModelKind.CROSS_ENCODER: "scores pairs",
    ModelKind.BI_ENCODER: "embeds single texts",
    ModelKind.SPARSE_ENCODER: "gives sparse vectors of single texts",
}


def _names(models: Iterable[Model]) -> str:
    return ", ".join(f"{model.name!r} ({model.kind.value})" for model in models)
