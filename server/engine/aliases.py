"""Other names for models: ``ALIAS=MODEL``, or ``ALIAS=MODEL:90,OTHER:10`` for shares of the calls."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Container, Mapping, Sequence

from ..errors import ConfigInvalid, ModelNotFound

Shares = Mapping[str, Sequence[tuple[str, float]]]
"""Alias -> models with their weights, of which at least one is above 0."""


def read_aliases(entries: Sequence[str]) -> Shares:
    """What the option says. An entry without ``=`` is one more model of the alias before it: options split at commas.

    Raises:
        ConfigInvalid: an entry is spelled otherwise, an alias is given twice, or gives no model a share.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    alias = ""
    for entry in entries:
        name, equals, target = entry.partition("=")
        if equals and name in found:
            raise ConfigInvalid(f"aliases: {name!r} is given twice")
        alias, target = (name, target) if equals else (alias, entry)
        model, weight = _target(target)
        if not (alias and model and 0 <= weight < math.inf):
            raise ConfigInvalid(f"aliases: {entry!r} is not ALIAS=MODEL, or ALIAS=MODEL:90,OTHER:10")
        found.setdefault(alias, []).append((model, weight))
    for name, models in found.items():
        if not any(weight for _, weight in models):
            raise ConfigInvalid(f"aliases: {name!r} gives no model a share above 0")
        for model, _ in models:
            if model in found:
                raise ConfigInvalid(f"aliases: {name!r} names {model!r}, which is an alias; name a model")
    return found


def _target(text: str) -> tuple[str, float]:
    model, _, weight = text.rpartition(":")
    try:
        return (model, float(weight)) if model else (text, 1.0)
    except ValueError:
        return text, 1.0


class Aliases:
    """Chooses a model for each call."""

    def __init__(self, shares: Shares, random: Callable[[], float]) -> None:
        """``random`` gives numbers from 0 to 1, without 1."""
        self._shares = shares
        self._random = random

    def __contains__(self, name: str) -> bool:
        return name in self._shares

    def names(self) -> list[str]:
        """All of them."""
        return list(self._shares)

    def choose(self, alias: str, loaded: Container[str]) -> str:
        """The model for one call. Those that are loaded share what the others would get.

        Raises:
            ModelNotFound: no model of the alias is loaded that has a share.
        """
        there = [(model, weight) for model, weight in self._shares[alias] if model in loaded and weight]
        if not there:
            models = ", ".join(repr(model) for model, _ in self._shares[alias])
            raise ModelNotFound(f"{alias!r} stands for {models}, which is not loaded")
        ends = list(itertools.accumulate(weight for _, weight in there))
        return there[min(bisect.bisect_right(ends, self._random() * ends[-1]), len(there) - 1)][0]
