"""The ledger against a plain sorted list."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.ledger import Key, Ledger

_DUES = (0.0, 1.0, 1.5, 2.0, 7.0)

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "change", "remove"]),
        st.sampled_from(_DUES),
        st.integers(1, 50),
        st.sampled_from([math.inf, 2.0, 8.0, 30.0]),
    ),
    max_size=60,
)


@given(steps=steps, copies=st.integers(1, 40), speed=st.sampled_from([0.5, 1.0, 4.0]))
def test_a_ledger_is_a_sorted_list_with_sums(
    steps: list[tuple[str, float, int, float]], copies: int, speed: float
) -> None:
    ledger, plain = Ledger(), dict[Key, tuple[float, float]]()
    for number, (what, due, seconds, deadline) in enumerate(steps):
        if what == "add":
            for copy in range(copies):
                key = (due + copy / 64, number * 64 + copy)
                ledger.add(key, float(seconds), deadline)
                plain[key] = (float(seconds), deadline)
        elif plain:
            key = sorted(plain)[seconds % len(plain)]
            if what == "change":
                ledger.change(key, due)
                plain[key] = (due, plain[key][1])
            else:
                ledger.remove(key)
                del plain[key]
    assert list(ledger) == sorted(plain)
    assert bool(ledger) == bool(plain)
    assert math.isclose(ledger.total, sum(seconds for seconds, _ in plain.values()), abs_tol=1e-9)
    for due in (-1.0, *_DUES, 9.0):
        until = sum(seconds for (at, _), (seconds, _) in plain.items() if at <= due)
        assert math.isclose(ledger.until(due), until, abs_tol=1e-9)
        before, slack = 0.0, math.inf
        for key in sorted(plain):
            before += plain[key][0]
            if key[0] > due:
                slack = min(slack, plain[key][1] * speed - before)
        assert math.isclose(ledger.slack_after(due, speed), slack, abs_tol=1e-9)
