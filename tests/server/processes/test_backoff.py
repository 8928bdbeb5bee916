"""How long a start waits."""

from pairwire.server.processes.backoff import FIRST_S, HEALTHY_S, LONGEST_S, BackOff


def test_waits_double_up_to_a_limit() -> None:
    back_off = BackOff()
    waits = [back_off.after(0.0) for _ in range(10)]
    assert waits[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert waits[-1] == LONGEST_S


def test_who_has_served_a_while_starts_again_at_once() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.after(HEALTHY_S - 1)
    assert back_off.after(HEALTHY_S) == FIRST_S
    assert back_off.after(0.0) == 2 * FIRST_S
