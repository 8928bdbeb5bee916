"""The cheapest way to cover waiting rows by batches: dynamic programming over the length-sorted pool.

    T[j] = min over k of T[j - k] + C[k, length of row j]

The j shortest rows are covered best by covering the j - k shortest best and running the last k as one batch, padded to
the longest of them. It is optimal: in a cheapest cover, of two batches the one with the longer longest row may always
take the longer rows, so batches are neighbours in the sorted pool.

That takes as many steps as rows times the largest batch. Where those are too many, the same recurrence runs over
lengths instead of rows: all rows of neighbouring lengths form a group, which is cut into the fewest batches, evenly.

Source of the recurrence: Fang et al., TurboTransformers, PPoPP 2021, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

EXACT_STEPS = 600
"""Up to this many steps, about 0.1 ms, rows are covered exactly; beyond, whole lengths are. On the recorded costs of a
CPU the coarser cover loses less than 0.4 % of the throughput."""
_MOST_PARTS = 3
"""Most batches of a group of lengths: larger groups only repeat what smaller ones offer."""


def cheapest_cover(
    counts: Sequence[int], seconds: Sequence[Sequence[float]], most_rows: Sequence[int]
) -> list[tuple[int, int]]:
    """The batches of a cheapest cover, shortest rows first: (position of the length that its rows are padded to, rows).

    ``counts[i]`` rows wait at the i-th length, ascending; ``seconds[i][k]`` is what k rows cost when padded to it, and
    ``most_rows[i]`` the most of them.
    """
    steps = sum(count * most for count, most in zip(counts, most_rows, strict=True))
    return (cover_rows if steps <= EXACT_STEPS else cover_lengths)(counts, seconds, most_rows)


def cover_rows(
    counts: Sequence[int], seconds: Sequence[Sequence[float]], most_rows: Sequence[int]
) -> list[tuple[int, int]]:
    """The cheapest cover there is. O(rows x most_rows) steps."""
    least = [0.0]  # T
    chosen: list[tuple[int, int]] = [(0, 0)]
    for position, count in enumerate(counts):
        cost, most = seconds[position], most_rows[position]
        for _ in range(count):
            # This row is the longest so far, so it sets the length of the batch that it ends. A batch of k rows takes
            # the k - 1 just before it: in the sorted pool they are the cheapest company.
            covered = len(least)
            total, rows = least[covered - 1] + cost[1], 1
            for k in range(2, min(most, covered) + 1):
                candidate = least[covered - k] + cost[k]
                if candidate <= total:  # of equals the larger batch: fewer runs
                    total, rows = candidate, k
            least.append(total)
            chosen.append((position, rows))
    # Walk back over the choices: each says where the batch before it ends.
    batches = []
    covered = len(least) - 1
    while covered:
        batches.append(chosen[covered])
        covered -= chosen[covered][1]
    return batches[::-1]


def cover_lengths(
    counts: Sequence[int], seconds: Sequence[Sequence[float]], most_rows: Sequence[int]
) -> list[tuple[int, int]]:
    """The cheapest cover by groups of whole lengths. O(lengths x lengths in a group) steps, however many rows wait."""
    least = [0.0]
    chosen: list[tuple[int, int, int]] = [(0, 0, 0)]  # where the group begins, its rows, its batches
    for position, (cost, most) in enumerate(zip(seconds, most_rows, strict=True)):
        rows = 0
        total, choice = float("inf"), (position, 0, 0)
        for begin in range(position, -1, -1):
            rows += counts[begin]
            parts = max(1, -(-rows // most))
            if parts > _MOST_PARTS and begin < position:
                break  # two smaller groups next to each other cost no more, and were tried before
            # Even parts: a small last batch would pay for a whole run with few rows in it.
            small, larger = divmod(rows, parts)  # ``larger`` of the batches have one row more
            candidate = least[begin] + (parts - larger) * cost[small] + (larger * cost[small + 1] if larger else 0.0)
            if candidate <= total:
                total, choice = candidate, (begin, rows, parts)
        least.append(total)
        chosen.append(choice)
    batches: list[tuple[int, int]] = []
    covered = len(counts)
    while covered:
        begin, rows, parts = chosen[covered]
        if rows:
            small, larger = divmod(rows, parts)
            batches += [(covered - 1, small + 1)] * larger + [(covered - 1, small)] * (parts - larger)
        covered = begin
    return batches[::-1]
