"""What a simulated run was worth, as a flat row of figures.

All but the capacity are of the time between the first tenth of the calls, in which the queue fills, and the last
arrival, after which it drains. Latencies are of calls, from arrival to the last row.

The capacity is what the workers do while they are busy: all pairs by all seconds of batches. Counting answers in a
window instead is off by a percent or two, as a rule that runs the long rows first always has the short ones left.

Unfairness compares a rule with itself. The work of a call is what its rows took, a row taking an equal share of its
batch. If the same workers did exactly that work in order of arrival, row by row, each call would be finished at a
certain time; how much later the rule finishes it is what the call lost to others that came after it, or to waiting for
the end of the batches that its rows were in. It says nothing about speed: a rule that wastes half of the device on
padding is compared with its own wasteful work.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from .rules import Call, Rule
from .simulation import Float64Array, OpenLoop, Seconds, Trace, simulate

_FILLING = 0.1
_TENTH = 0.1


def figures(trace: Trace, alone: Float64Array | None = None) -> dict[str, float]:
    """Seconds in milliseconds, shares between 0 and 1. ``alone``: [calls] the latency of each on an idle server."""
    first = int(len(trace.calls) * _FILLING)
    begin, end = trace.arrived[first], trace.arrived[-1]
    counted = slice(first, None)
    latency = (trace.finished - trace.arrived)[counted]
    lost = (trace.finished - in_order_of_arrival(trace))[counted]
    service = call_seconds(trace).mean()
    done = np.count_nonzero((trace.row_finished > begin) & (trace.row_finished <= end))
    short, long = _short_and_long(trace, first)
    row = {
        "capacity_per_s": len(trace.row_seconds) * trace.workers / float(trace.row_seconds.sum()),
        "pairs_per_s": done / (end - begin),
        "p50_ms": 1e3 * float(np.percentile(latency, 50)),
        "p99_ms": 1e3 * float(np.percentile(latency, 99)),
        "padding": padding(trace, begin, end),
        "lost_p99_ms": 1e3 * float(np.percentile(lost, 99)),
        "lost_max_ms": 1e3 * float(lost.max()),
        "lost_p99_calls": float(np.percentile(lost, 99) / service),
        "lost_max_calls": float(lost.max() / service),
        "short_p99_ms": 1e3 * short,
        "long_p99_ms": 1e3 * long,
    }
    if alone is not None:
        slowdown = latency / alone[counted]
        row["slowdown_p50"] = float(np.percentile(slowdown, 50))
        row["slowdown_p99"] = float(np.percentile(slowdown, 99))
    return row


def padding(trace: Trace, begin: float, end: float) -> float:
    """Share of padding in the tokens computed by batches that ended in that time."""
    runs = [run for run in trace.runs if begin < run.ended <= end]
    computed = sum(run.rows * run.length for run in runs)
    return 1.0 - sum(run.tokens for run in runs) / computed if computed else 0.0


def call_seconds(trace: Trace) -> Float64Array:
    """[calls] the work of each: what its rows took."""
    return np.add.reduceat(trace.row_seconds, [call.first_row for call in trace.calls])


def in_order_of_arrival(trace: Trace) -> Float64Array:
    """[calls] when each would be finished if the same work were done row by row in order of arrival."""
    free = [0.0] * trace.workers
    finished = np.empty(len(trace.calls))
    for call in sorted(trace.calls, key=lambda call: (trace.arrived[call.number], call.number)):
        last = arrived = float(trace.arrived[call.number])
        for taken in trace.row_seconds[call.first_row : call.first_row + len(call.lengths)].tolist():
            ends = max(arrived, heapq.heappop(free)) + taken
            heapq.heappush(free, ends)
            last = max(last, ends)
        finished[call.number] = last
    return finished


def alone(rule: Rule, calls: Sequence[Call], seconds: Seconds, workers: int) -> Float64Array:
    """[calls] the latency of each when nothing else is there, under that rule."""
    return np.array([_latency_alone(rule, call, seconds, workers) for call in calls])


def _latency_alone(rule: Rule, call: Call, seconds: Seconds, workers: int) -> float:
    only = Call(0, 0, call.lengths)
    return float(simulate(rule, [only], seconds, workers=workers, load=OpenLoop(np.zeros(1))).finished[0])


def _short_and_long(trace: Trace, first: int) -> tuple[float, float]:
    """99th percentile of the seconds from arrival to a row's own end, of the shortest and the longest tenth of rows."""
    sizes = [len(call.lengths) for call in trace.calls]
    latency = trace.row_finished - np.repeat(trace.arrived, sizes)
    lengths = np.array([length for call in trace.calls for length in call.lengths])
    counted = np.arange(len(lengths)) >= trace.calls[first].first_row
    low, high = np.quantile(lengths[counted], [_TENTH, 1 - _TENTH])
    short, long = counted & (lengths <= low), counted & (lengths >= high)
    return float(np.percentile(latency[short], 99)), float(np.percentile(latency[long], 99))
