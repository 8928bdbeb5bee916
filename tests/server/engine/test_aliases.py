"""Other names for models, and shares of calls."""

from __future__ import annotations

import collections

import pytest

from pairwire.server.engine import EngineConfig
from pairwire.server.engine.aliases import Aliases, read_aliases
from pairwire.server.errors import ConfigInvalid, ModelNotFound


def test_an_option_that_was_split_at_its_commas_is_read_whole() -> None:
    assert read_aliases(("a=x:90", "y:10", "b=z", "c=org/z:v2")) == {
        "a": [("x", 90.0), ("y", 10.0)],
        "b": [("z", 1.0)],
        "c": [("org/z:v2", 1.0)],
    }


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (("x",), "is not ALIAS=MODEL"),
        (("=x",), "is not ALIAS=MODEL"),
        (("a=",), "is not ALIAS=MODEL"),
        (("a=x:-1",), "is not ALIAS=MODEL"),
        (("a=x:nan",), "is not ALIAS=MODEL"),
        (("a=x:inf",), "is not ALIAS=MODEL"),
        (("a=x:0", "y:0"), "no model a share"),
        (("a=x", "a=y"), "given twice"),
        (("a=x", "b=a"), "which is an alias"),
    ],
)
def test_what_cannot_work_is_said(entries: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why):
        EngineConfig(aliases=entries)


def test_shares_are_kept_exactly() -> None:
    numbers = iter([number / 100 for number in range(100)])
    aliases = Aliases(read_aliases(("a=x:90", "y:10", "never:0")), lambda: next(numbers))
    chosen = collections.Counter(aliases.choose("a", {"x", "y", "never"}) for _ in range(100))
    assert chosen == {"x": 90, "y": 10}


def test_what_is_loaded_gets_what_others_would() -> None:
    aliases = Aliases(read_aliases(("a=x:90", "y:10", "never:0")), lambda: 0.5)
    assert aliases.choose("a", {"y"}) == "y"
    with pytest.raises(ModelNotFound, match="stands for 'x', 'y', 'never', which is not loaded"):
        aliases.choose("a", {"never"})
