"""Which model answers a call that names none: protocols made for servers of one model, beside several models."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from enum import Enum

from ..config import RolesConfig
from ..engine.kinds import ModelKind
from ..engine.results import ModelInfo
from ..errors import ConfigInvalid, InvalidInput, PairwireError, WrongModelKind
from ..rpc.method import EngineSource


class Role(Enum):
    """What a call is for. The value is the option's name: ``default_<role>_model``."""

    EMBED = "embed"
    SPARSE = "sparse"
    RERANK = "rerank"
    PREDICT = "predict"
    """Classifies texts or pairs: labels with scores."""
    INFO = "info"
    """Is described, where a protocol knows of one model; and tokenises."""

    @property
    def kind(self) -> ModelKind | None:
        """The kind of model that can do it; None for any."""
        return _KINDS[self]


_KINDS = {
    Role.EMBED: ModelKind.BI_ENCODER,
    Role.SPARSE: ModelKind.SPARSE_ENCODER,
    Role.RERANK: ModelKind.CROSS_ENCODER,
    Role.PREDICT: ModelKind.CROSS_ENCODER,
    Role.INFO: None,
}


class Roles:
    """The models of an engine by what calls are for."""

    def __init__(self, engine: EngineSource, config: RolesConfig) -> None:
        self._engine = engine
        self._chosen = {role: str(getattr(config, _option(role))) for role in Role}

    def check(self) -> None:
        """Whether the options name models that are loaded and can do it.

        Raises:
            ConfigInvalid: the sentence names the option.
        """
        for role, name in self._chosen.items():
            if name:
                try:
                    found = self.find(role)
                except PairwireError as error:
                    raise ConfigInvalid(f"{_option(role)}: {error}") from None
                if role is Role.RERANK and not _of_labels([found], one=True):
                    labels = ", ".join(found.manifest.labels)
                    raise ConfigInvalid(f"{_option(role)}: model {name!r} has several labels ({labels}) to rank by")

    def find(self, role: Role, name: str = "") -> ModelInfo:
        """The model that a call for ``role`` means; ``name`` is what the call says, which may be nothing.

        Raises:
            ModelNotFound, WrongModelKind: as ``Engine.find``.
            InvalidInput: nothing is said, and several models would fit.
            WrongModelKind: nothing is said, and none would.
        """
        engine = self._engine()
        if name := name or self._chosen[role]:
            return engine.find(name, role.kind)
        models = list(engine.models.values())
        fitting = [each for each in models if role.kind in (None, each.kind)]
        if role is Role.RERANK:
            fitting = _of_labels(fitting, one=True)
        elif role is Role.PREDICT and len(fitting) > 1:
            fitting = _of_labels(fitting, one=False) or fitting
        elif role is Role.INFO:
            fitting = fitting[:1]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            there_is = ", ".join(f"{each.name!r} ({each.kind.value})" for each in models)
            raise WrongModelKind(f"no loaded model does this ({role.value}); there is {there_is}")
        names = ", ".join(repr(each.name) for each in fitting)
        flag = "--" + _option(role).replace("_", "-")
        how = f"the call names none, and {names} could answer; name one of them, or start the server with {flag}"
        raise InvalidInput("model", how)

    def known(self, calls: Mapping[str, Role]) -> dict[str, str]:
        """Names of models by names of calls, for those calls that some model answers where they name none."""
        found = {}
        for call, role in calls.items():
            with contextlib.suppress(PairwireError):
                found[call] = self.name(role)
        return found

    def name(self, role: Role, name: str = "") -> str:
        """The name of the model that ``find`` finds."""
        return self.find(role, name).name


def _of_labels(models: Sequence[ModelInfo], *, one: bool) -> list[ModelInfo]:
    return [each for each in models if (len(each.manifest.labels) == 1) is one]


def _option(role: Role) -> str:
    return f"default_{role.value}_model"
