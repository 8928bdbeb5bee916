"""The phases and their order."""

from __future__ import annotations

import itertools

import pytest

from pairwire.server.lifecycle import NEXT, Lifecycle, Phase


def test_a_whole_life_is_told_to_the_listeners_in_order() -> None:
    lifecycle, told = Lifecycle(), []
    lifecycle.listen(lambda phase: told.append(("first", phase)))
    lifecycle.listen(lambda phase: told.append(("second", phase)))
    assert lifecycle.phase is Phase.LOADING
    for phase in (Phase.READY, Phase.DRAINING, Phase.STOPPED):
        lifecycle.enter(phase)
        assert lifecycle.phase is phase
        assert told[-2:] == [("first", phase), ("second", phase)]


def reached(phase: Phase) -> Lifecycle:
    ways = {
        Phase.LOADING: (),
        Phase.READY: (Phase.READY,),
        Phase.DRAINING: (Phase.READY, Phase.DRAINING),
        Phase.STOPPED: (Phase.STOPPED,),
    }
    lifecycle = Lifecycle()
    for step in ways[phase]:
        lifecycle.enter(step)
    return lifecycle


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Phase, Phase)))
def test_only_the_listed_ways_are_open(before: Phase, after: Phase) -> None:
    lifecycle = reached(before)
    if after in NEXT[before]:
        lifecycle.enter(after)
        assert lifecycle.phase is after
    else:
        with pytest.raises(RuntimeError, match=f"a server that is {before.value} cannot become {after.value}"):
            lifecycle.enter(after)
        assert lifecycle.phase is before
