"""The agenda against a plain sorted list."""

from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.agenda import Agenda


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove"]), st.integers(0, 20)), max_size=60))
def test_the_first_is_the_smallest_time_and_then_the_lowest_sequence(steps: list[tuple[str, int]]) -> None:
    agenda: Agenda[str] = Agenda()
    kept: list[tuple[float, int]] = []
    added = 0
    for kind, number in steps:
        if kind == "add":
            agenda.add(float(number % 4), added, f"item {added}")
            kept.append((float(number % 4), added))
            added += 1
        else:
            known = any(sequence == number for _, sequence in kept)
            assert agenda.remove(number) == known
            kept = [entry for entry in kept if entry[1] != number]
        assert len(agenda) == len(kept)
        assert agenda.first() == (f"item {min(kept)[1]}" if kept else None)


def test_items_removed_behind_the_first_one_do_not_pile_up_in_its_way() -> None:
    agenda: Agenda[int] = Agenda()
    agenda.add(0.0, 0, 0)
    for number in range(1, 5000):
        agenda.add(float(number), number, number)
        agenda.remove(number)
    agenda.remove(0)
    assert agenda.first() is None
    assert len(agenda) == 0
