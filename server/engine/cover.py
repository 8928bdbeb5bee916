"""The cheapest way to cover waiting rows by batches: dynamic programming over the length-sorted pool.

    T[j] = min over k of T[j - k] + C[k, length of row j]

The j shortest rows are covered best by covering the j - k shortest best and running the last k as one batch, padded to
the longest of them. It is optimal: in a cheapest cover, of two batches the one with the longer longest row may always
take the longer rows, so batches are neighbours in the sorted pool.

Source of the recurrence: Fang et al., TurboTransformers, PPoPP 2021, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence


def cheapest_cover(
    counts: Sequence[int], seconds: Sequence[Sequence[float]], most_rows: Sequence[int]
) -> list[tuple[int, int]]:
    """The batches of a cheapest cover, shortest rows first: (position of the longest row's length, rows).

    ``counts[i]`` rows wait at the i-th length, ascending; ``seconds[i][k]`` is what k rows cost when padded to it, and
    ``most_rows[i]`` the most of them. Takes O(rows x most_rows) steps.
    """
    least = [0.0]  # T
    chosen: list[tuple[int, int]] = [(0, 0)]
    for position, count in enumerate(counts):
        cost, most = seconds[position], most_rows[position]
        for _ in range(count):
            covered = len(least)
            total, rows = least[covered - 1] + cost[1], 1
            for k in range(2, min(most, covered) + 1):
                candidate = least[covered - k] + cost[k]
                if candidate <= total:  # of equals the larger batch: fewer runs
                    total, rows = candidate, k
            least.append(total)
            chosen.append((position, rows))
    batches = []
    covered = len(least) - 1
    while covered:
        batches.append(chosen[covered])
        covered -= chosen[covered][1]
    return batches[::-1]
