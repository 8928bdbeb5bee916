"""Sums of metrics: by meaning, and never going down."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pairwire.server.metrics import TABLE
from pairwire.server.processes.totals import GAUGES, Families, Reading, add_up, lasting, parse, shown


def process(*, requests: int = 0, seconds: tuple[float, ...] = (), **gauges: float) -> str:
    """The metrics of a process as text."""
    registry = CollectorRegistry()
    counter = Counter("pairwire_requests", "RPCs.", ("code",), registry=registry)
    counter.labels("OK").inc(requests)
    histogram = Histogram("pairwire_batch_seconds", "Time.", buckets=(0.1, 1.0), registry=registry)
    for value in seconds:
        histogram.observe(value)
    for name, value in gauges.items():
        Gauge(name, "A gauge.", registry=registry).set(value)
    return generate_latest(registry).decode()


class Shown:
    """Families as a scrape shows them."""

    def __init__(self, families: Families) -> None:
        self.families = {family.name: family for family in families}

    def value(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return value


def test_counters_and_histograms_are_added() -> None:
    sums = Shown(
        add_up([parse(process(requests=3, seconds=(0.05, 0.5))), parse(process(requests=4, seconds=(0.5, 2)))])
    )
    assert sums.value("pairwire_requests_total", code="OK") == 7
    assert [sums.value("pairwire_batch_seconds_bucket", le=edge) for edge in ("0.1", "1.0", "+Inf")] == [1, 3, 4]
    assert sums.value("pairwire_batch_seconds_count") == 4
    assert sums.value("pairwire_batch_seconds_sum") == pytest.approx(3.05)


def test_a_label_that_only_one_process_has_is_kept() -> None:
    registry = CollectorRegistry()
    Counter("pairwire_requests", "RPCs.", ("code",), registry=registry).labels("INTERNAL").inc()
    sums = Shown(add_up([parse(process(requests=2)), parse(generate_latest(registry).decode())]))
    assert sums.value("pairwire_requests_total", code="OK") == 2
    assert sums.value("pairwire_requests_total", code="INTERNAL") == 1


@pytest.mark.parametrize(
    ("name", "values", "total"),
    [
        ("pairwire_queue_tokens", (3, 4), 7),
        ("pairwire_model_healthy", (1, 0), 0),
        ("pairwire_estimated_wait_seconds", (0.5, 0.25), 0.5),
        ("process_start_time_seconds", (100, 200), 200),
        ("pairwire_something_new", (1, 2), 3),
    ],
)
def test_gauges_are_combined_by_what_they_mean(name: str, values: tuple[float, float], total: float) -> None:
    assert Shown(add_up(parse(process(**{name: value})) for value in values)).value(name) == total


def test_every_gauge_has_a_rule() -> None:
    ours = {series.name for series in TABLE if series.kind == "gauge"}
    foreign = {family.name for family in ProcessCollector(registry=None).collect() if family.type == "gauge"}
    assert set(GAUGES) == ours | foreign


def test_what_a_process_counted_outlives_it_and_its_gauges_do_not() -> None:
    retired: Families = ()
    for _ in range(3):
        retired = add_up([retired, lasting(parse(process(requests=5, seconds=(0.5,), pairwire_queue_tokens=9)))])
    sums = Shown(add_up([retired, parse(process(requests=1))]))
    assert sums.value("pairwire_requests_total", code="OK") == 16
    assert sums.value("pairwire_batch_seconds_count") == 3
    assert "pairwire_queue_tokens" not in sums.families


def test_graphs_and_memory_of_all_gpus_are_added() -> None:
    texts = [
        process(pairwire_cuda_graphs=58, pairwire_cuda_eager_shapes=eager, pairwire_cuda_memory_bytes=2**30)
        for eager in (0, 3)
    ]
    sums = Shown(add_up([parse(text) for text in texts]))
    assert sums.value("pairwire_cuda_graphs") == 116
    assert sums.value("pairwire_cuda_eager_shapes") == 3
    assert sums.value("pairwire_cuda_memory_bytes") == 2**31


def test_a_series_began_when_its_first_process_did() -> None:
    first, second = parse(process(requests=1)), parse(process(requests=1))
    began = Shown(first).value("pairwire_requests_created", code="OK")
    total = Shown(add_up([second, first]))
    assert total.value("pairwire_requests_created", code="OK") == began
    assert "pairwire_requests_created" not in total.families  # no family of its own, which would be a gauge


def test_a_process_that_has_not_reported_yet_adds_nothing() -> None:
    assert add_up([parse(""), lasting(parse(""))]) == ()


def test_the_sum_is_shown_in_the_format_that_it_was_read_in() -> None:
    total = add_up([parse(process(requests=2, seconds=(0.5,), pairwire_queue_tokens=1))])

    class Fixed(Collector):
        def collect(self) -> Families:
            return total

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed())
    again = parse(generate_latest(registry).decode())

    def plain(families: Families) -> dict[str, tuple[str, str, list[tuple[str, float]]]]:
        def content(family: Metric) -> tuple[str, str, list[tuple[str, float]]]:
            return family.type, family.documentation, sorted((each.name, each.value) for each in family.samples)

        return {family.name: content(family) for family in families}

    assert plain(again) == plain(total)


def test_the_supervisors_own_series_tell_who_serves_and_how_much() -> None:
    texts = (process(requests=2), process(requests=7))
    total = Shown(shown(Reading(retired=(), texts=texts, processes=3, ready=2, restarts=4)))
    assert total.value("pairwire_requests_total", code="OK") == 9
    assert total.value("pairwire_processes") == 3
    assert total.value("pairwire_processes_ready") == 2
    assert total.value("pairwire_process_restarts_total") == 4
    assert [total.value("pairwire_process_requests_total", process=number) for number in "01"] == [2, 7]
