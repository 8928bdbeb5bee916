"""Metrics of several processes, added up. Counters of those that have ended stay in, so that no counter goes down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

Families: TypeAlias = Sequence[Metric]
"""The metrics of one process."""

GAUGES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "pairwire_model_healthy": min,
    "pairwire_model_version": max,
    "pairwire_cuda_graphs": sum,
    "pairwire_cuda_eager_shapes": sum,
    "pairwire_cuda_memory_bytes": sum,
    "pairwire_queue_tokens": sum,
    "pairwire_queue_limit_tokens": sum,
    "pairwire_queue_rows": sum,
    "pairwire_running_rows": sum,
    "pairwire_open_requests": sum,
    "pairwire_estimated_wait_seconds": max,
    "pairwire_capacity_tokens_per_second": sum,
    "pairwire_token_cache_bytes": sum,
    "pairwire_score_cache_bytes": sum,
    "pairwire_vector_cache_bytes": sum,
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_start_time_seconds": max,
    "process_open_fds": sum,
    "process_max_fds": sum,
}
"""Gauge -> what stands for all processes: the sum, the worst, or for the start time the latest, so that a restart shows
as a change. A gauge that is not here is summed."""

_CREATED = "_created"
_ADDED = ("counter", "histogram", "summary")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All processes at one moment."""

    retired: Families
    """The sum over those that have ended."""
    texts: Sequence[str]
    """The last report of each that runs, by its number."""
    processes: int
    """How many should serve."""
    ready: int
    restarts: int


def shown(now: Reading) -> Families:
    """The sums, and the supervisor's own series."""
    parts = [parse(text) for text in now.texts]
    return (*add_up((now.retired, *parts)), *_series_of_supervisor(now, parts))


def _series_of_supervisor(now: Reading, parts: Sequence[Families]) -> Iterator[Metric]:
    yield GaugeMetricFamily("pairwire_processes", "Processes that should serve.", value=now.processes)
    yield GaugeMetricFamily("pairwire_processes_ready", "Processes that serve.", value=now.ready)
    yield CounterMetricFamily("pairwire_process_restarts", "Restarts of a process.", value=now.restarts)
    requests = CounterMetricFamily(
        "pairwire_process_requests",
        "RPCs answered by each process since it was started: whether connections are spread evenly.",
        labels=("process",),
    )
    for number, families in enumerate(parts):
        answered = (family for family in families if family.name == "pairwire_requests")
        total = sum(each.value for family in answered for each in family.samples if each.name.endswith("_total"))
        requests.add_metric((str(number),), total)
    yield requests


def parse(text: str) -> Families:
    """The families of Prometheus' text format; when a series began (``_created``) is back in the series' family."""
    families: dict[str, Metric] = {}
    for family in text_string_to_metric_families(text):
        owner = families.get(family.name.removesuffix(_CREATED))
        if family.name.endswith(_CREATED) and owner is not None and owner.type in _ADDED:
            owner.samples.extend(family.samples)
        else:
            families[family.name] = family
    return tuple(families.values())


def add_up(parts: Iterable[Families]) -> Families:
    """One family for each name, in the order in which they first come."""
    totals: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for family in (family for part in parts for family in part):
        if family.name not in totals:
            totals[family.name] = Metric(family.name, family.documentation, family.type)
            values[family.name] = {}
        for sample in family.samples:
            values[family.name].setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    for name, total in totals.items():
        for (sample_name, labels), found in values[name].items():
            total.add_sample(sample_name, dict(labels), _rule(total, sample_name)(found))
    return tuple(totals.values())


def lasting(families: Families) -> Families:
    """What goes on to count when the process has ended: all but the gauges."""
    return tuple(family for family in families if family.type in _ADDED)


def _rule(family: Metric, sample_name: str) -> Callable[[Iterable[float]], float]:
    if family.type == "gauge":
        return GAUGES.get(family.name, sum)
    return min if sample_name.endswith(_CREATED) else sum
