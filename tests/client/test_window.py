"""How many parts are on their way, by how fast answers come."""

import itertools

import pytest

from pairwire.client.window import Window


@pytest.mark.parametrize(
    ("gap_s", "most", "size"),
    [(0.0, 8, 8), (0.01, 8, 8), (0.21, 8, 6), (0.4, 8, 4), (0.9, 8, 3), (3.0, 8, 2), (0.01, 1, 1), (9.0, 1, 1)],
)
def test_as_many_parts_are_sent_as_are_answered_within_a_second_and_two(gap_s: float, most: int, size: int) -> None:
    clock = itertools.count()
    window = Window(most, lambda: gap_s * next(clock))
    assert window.size == min(4, most)
    window.answered()
    assert window.size == min(4, most)
    for _ in range(5):
        window.answered()
        assert window.size == size


def test_it_follows_a_server_that_becomes_slow_and_quick_again() -> None:
    time_s = [0.0]
    window = Window(8, lambda: time_s[0])
    sizes = []
    for gap_s in (0.05, 0.05, 4.0, 4.0, *[0.05] * 8):
        time_s[0] += gap_s
        window.answered()
        sizes.append(window.size)
    assert sizes[:4] == [4, 8, 2, 2]
    assert sizes[-1] == 8
