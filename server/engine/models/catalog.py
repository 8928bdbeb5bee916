"""Which model answers: the models by name, and the rules for a name that is empty, unknown or of the wrong kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import ConfigInvalid, InvalidInput, ModelNotFound, WrongModelKind
from ..results import ModelInfo, ModelKind
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

    def resolve(self, name: str, kind: ModelKind) -> Model:
        """The model of that name, or, where the name is empty, the only one of the kind.

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
        if model.kind is not kind:
            does = _DOES[model.kind]
            raise WrongModelKind(
                f"model {name!r} is a {model.kind.value}: it {does}; there is {_names(self.models.values())}"
            )
        return model

    def _only(self, kind: ModelKind) -> Model:
        fitting = [model for model in self.models.values() if model.kind is kind]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            reason = f"there are several of kind {kind.value}; name one of {_names(fitting)}"
            raise InvalidInput("model", f"empty, but {reason}")
        reason = f"no model of kind {kind.value} is loaded; there is {_names(self.models.values())}"
        raise InvalidInput("model", f"empty, and {reason}")


def only_model(models: Mapping[str, ModelInfo], name: str, kind: ModelKind) -> ModelInfo | None:
    """The model that a call means, from outside; None for what ``resolve`` will refuse."""
    fitting = [info for info in models.values() if info.kind is kind and info.name == (name or info.name)]
    return fitting[0] if len(fitting) == 1 else None


_DOES = {
    ModelKind.CROSS_ENCODER: "scores pairs",
    ModelKind.BI_ENCODER: "embeds single texts",
    ModelKind.SPARSE_ENCODER: "gives sparse vectors of single texts",
}


def _names(models: Iterable[Model]) -> str:
    return ", ".join(f"{model.name!r} ({model.kind.value})" for model in models)
