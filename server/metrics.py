"""Every Prometheus series, in one table, and what feeds them: engine events, RPCs, and statistics at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .engine.cache import CacheStatistics
from .engine.kinds import ModelKind
from .engine.observer import BatchEvent, Outcome, RequestEvent
from .engine.outputs.nli import NliLogits
from .engine.results import EngineStatistics, ModelInfo, ModelStatistics
from .runtime.base import CudaInfo

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bucket edges of durations."""
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Bucket edges of rows of a batch."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series: what a dashboard needs to know of it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


TABLE: tuple[Series, ...] = (
    Series(
        "pairwire_requests",
        "counter",
        ("rpc", "model", "code"),
        "RPCs answered, by gRPC status code; kserve.* and tei.* are other protocols; of a stream, each request.",
    ),
    Series("pairwire_request_seconds", "histogram", ("rpc", "model"), "Time to answer an RPC.", SECONDS),
    Series(
        "pairwire_stage_seconds",
        "histogram",
        ("model", "stage"),
        "Time of an answered request in each stage: queue, tokenize, compute.",
        SECONDS,
    ),
    Series("pairwire_rows", "counter", ("model",), "Pairs or texts of answered requests."),
    Series("pairwire_unscored_rows", "counter", ("model",), "Documents of partial answers that have no score."),
    Series(
        "pairwire_shed",
        "counter",
        ("model", "caller", "reason"),
        "Requests refused at once for the load: no room in the queue (queue), or no time for it (deadline).",
    ),
    Series(
        "pairwire_expired",
        "counter",
        ("model", "caller"),
        "Requests that were let in and whose deadline passed, or could not be met any more.",
    ),
    Series("pairwire_cancelled", "counter", ("model", "caller"), "Requests whose caller left before the answer."),
    Series("pairwire_batch_seconds", "histogram", ("model",), "Time to run a batch.", SECONDS),
    Series("pairwire_batch_rows", "histogram", ("model",), "Rows with text in a batch.", ROWS),
    Series("pairwire_batch_slots", "counter", ("model",), "Rows of batches, those that only fill the shape included."),
    Series("pairwire_useful_tokens", "counter", ("model",), "Tokens of text computed in batches."),
    Series("pairwire_computed_tokens", "counter", ("model",), "Tokens computed in batches, padding included."),
    Series("pairwire_model_healthy", "gauge", ("model",), "1 while the model's last run succeeded, else 0."),
    Series("pairwire_cuda_graphs", "gauge", ("model",), "Shapes of batches that are replayed as CUDA graphs."),
    Series("pairwire_cuda_eager_shapes", "gauge", ("model",), "Shapes of batches that could not be captured."),
    Series("pairwire_cuda_memory_bytes", "gauge", ("model",), "Memory of the GPU that loading the model took."),
    Series("pairwire_queue_tokens", "gauge", (), "Tokens that wait."),
    Series("pairwire_queue_limit_tokens", "gauge", (), "Tokens that may wait before requests are refused."),
    Series("pairwire_queue_rows", "gauge", (), "Pairs or texts that wait."),
    Series("pairwire_running_rows", "gauge", (), "Pairs or texts being computed."),
    Series("pairwire_open_requests", "gauge", (), "Requests in the engine: accepted and not yet answered."),
    Series(
        "pairwire_estimated_wait_seconds",
        "gauge",
        (),
        "Estimated seconds until everything now queued or running is done.",
    ),
    Series(
        "pairwire_capacity_tokens_per_second",
        "gauge",
        (),
        "Tokens that all workers compute in a second, by what batches took lately.",
    ),
    Series("pairwire_shared_rows", "counter", ("model",), "Pairs or texts answered with the result of an equal one."),
    Series("pairwire_token_cache_hits", "counter", ("model",), "Texts whose token ids were known."),
    Series("pairwire_token_cache_misses", "counter", ("model",), "Texts that were tokenised."),
    Series("pairwire_token_cache_bytes", "gauge", ("model",), "Memory that known token ids take."),
    Series("pairwire_vector_cache_hits", "counter", ("model",), "Documents of a first stage whose vector was known."),
    Series("pairwire_vector_cache_misses", "counter", ("model",), "Documents of a first stage that were embedded."),
    Series("pairwire_vector_cache_bytes", "gauge", ("model",), "Memory that known vectors take."),
    Series("pairwire_score_cache_hits", "counter", (), "Pairs or texts whose result was known."),
    Series("pairwire_score_cache_misses", "counter", (), "Pairs or texts looked up and not known."),
    Series("pairwire_score_cache_bytes", "gauge", (), "Memory that known results take."),
)
"""Every series, but for the process_* ones (memory, CPU, open files) of prometheus-client. Counters end in _total."""

UNKNOWN_MODEL = "unknown"
"""Label of requests that name no loaded model: what clients send never becomes a label."""

OTHER_CALLER = "other"
"""Label of all callers beyond the first ``MOST_CALLERS`` of whom there was something to tell."""
MOST_CALLERS = 32

_KIND_OF_RPC: Mapping[str, ModelKind] = {
    "Score": ModelKind.CROSS_ENCODER,
    "Rerank": ModelKind.CROSS_ENCODER,
    "Embed": ModelKind.BI_ENCODER,
    "EmbedSparse": ModelKind.SPARSE_ENCODER,
}


class Metrics:
    """Feeds the series; an engine ``Observer`` and an ``RpcListener``. Thread-safe."""

    def __init__(self, callers: Iterable[str] = ()) -> None:
        """``callers`` have labels of their own, however many there are."""
        self._callers = set(callers)
        self._most_callers = len(self._callers) + MOST_CALLERS
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        table = {series.name: series for series in TABLE}
        self._requests = self._counter(table["pairwire_requests"])
        self._request_seconds = self._histogram(table["pairwire_request_seconds"])
        self._stage_seconds = self._histogram(table["pairwire_stage_seconds"])
        self._rows = self._counter(table["pairwire_rows"])
        self._unscored_rows = self._counter(table["pairwire_unscored_rows"])
        self._shed = self._counter(table["pairwire_shed"])
        self._expired = self._counter(table["pairwire_expired"])
        self._cancelled = self._counter(table["pairwire_cancelled"])
        self._batch_seconds = self._histogram(table["pairwire_batch_seconds"])
        self._batch_rows = self._histogram(table["pairwire_batch_rows"])
        self._batch_slots = self._counter(table["pairwire_batch_slots"])
        self._useful_tokens = self._counter(table["pairwire_useful_tokens"])
        self._computed_tokens = self._counter(table["pairwire_computed_tokens"])
        self._models: Mapping[tuple[str, str], str] = {}
        self._rpc_series: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def watch(
        self,
        models: Iterable[ModelInfo],
        statistics: Callable[[], EngineStatistics],
        defaults: Mapping[str, str] | None = None,
    ) -> None:
        """From now on these are the models, and each scrape reads the statistics (from a thread of its own).

        ``defaults`` says which of them answers an RPC that names none.
        """
        chosen = {(rpc, ""): model for rpc, model in (defaults or {}).items()}
        self._models = {**_labels(tuple(models)), **chosen}
        self.registry.register(_EngineStatistics(statistics))

    def rpc_finished(self, rpc: str, model: str, code: str, seconds: float) -> None:
        """Counts an RPC."""
        label = self._models.get((rpc, model)) or self._models.get(("", model), UNKNOWN_MODEL if model else "")
        series = self._rpc_series.get((rpc, label, code))
        if series is None:  # looking children up by their labels costs more than counting
            series = (self._requests.labels(rpc, label, code), self._request_seconds.labels(rpc, label))
            self._rpc_series[rpc, label, code] = series
        series[0].inc()
        series[1].observe(seconds)

    def request_finished(self, event: RequestEvent) -> None:
        """Splits the time of an answered request, which refused and failed ones would only distort; counts those."""
        if event.outcome is not Outcome.OK:
            self._count_unanswered(event)
            return
        self._rows.labels(event.model).inc(event.rows - event.unscored)
        if event.unscored:
            self._unscored_rows.labels(event.model).inc(event.unscored)
        self._stage_seconds.labels(event.model, "queue").observe(event.queue_s)
        self._stage_seconds.labels(event.model, "tokenize").observe(event.tokenize_s)
        self._stage_seconds.labels(event.model, "compute").observe(event.compute_s)

    def _count_unanswered(self, event: RequestEvent) -> None:
        if event.outcome is Outcome.OVERLOADED:
            self._shed.labels(event.model, self._caller(event.caller), "queue").inc()
        elif event.outcome is Outcome.DEADLINE and event.refused:
            self._shed.labels(event.model, self._caller(event.caller), "deadline").inc()
        elif event.outcome is Outcome.DEADLINE:
            self._expired.labels(event.model, self._caller(event.caller)).inc()
        elif event.outcome is Outcome.CANCELLED:
            self._cancelled.labels(event.model, self._caller(event.caller)).inc()

    def _caller(self, name: str) -> str:
        """What clients may have made up: a label for some of them."""
        if name not in self._callers:
            if len(self._callers) >= self._most_callers:
                return OTHER_CALLER
            self._callers.add(name)
        return name

    def batch_finished(self, event: BatchEvent) -> None:
        """Counts a batch."""
        self._batch_seconds.labels(event.model).observe(event.seconds)
        self._batch_rows.labels(event.model).observe(event.rows)
        self._batch_slots.labels(event.model).inc(max(event.rows, event.bucket.rows))
        self._useful_tokens.labels(event.model).inc(event.useful_tokens)
        self._computed_tokens.labels(event.model).inc(event.computed_tokens)

    def model_health(self, model: str, healthy: bool) -> None:
        """Nothing: the gauge is read from the statistics."""

    def _counter(self, series: Series) -> Counter:
        return Counter(series.name, series.help, series.labels, registry=self.registry)

    def _histogram(self, series: Series) -> Histogram:
        return Histogram(series.name, series.help, series.labels, buckets=series.buckets, registry=self.registry)


class _EngineStatistics(Collector):
    """All that the engine counts or holds itself, from one reading of its statistics, so that it fits together."""

    def __init__(self, statistics: Callable[[], EngineStatistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        """Names only: registering must not read the statistics."""
        return [_family(series) for series in TABLE if series.name in _READINGS]

    def collect(self) -> Iterator[Metric]:
        """The gauges, and counters that the engine keeps."""
        now = self._statistics()
        for series in TABLE:
            reading = _READINGS.get(series.name)
            if reading is not None:
                family = _family(series)
                for labels, value in reading(now):
                    family.add_metric(labels, value)
                yield family


def _family(series: Series) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
    return kind(series.name, series.help, labels=series.labels)


_Reading = Callable[[EngineStatistics], list[tuple[tuple[str, ...], float]]]


def _once(read: Callable[[EngineStatistics], float]) -> _Reading:
    return lambda now: [((), read(now))]


def _by_model(read: Callable[[ModelStatistics], float]) -> _Reading:
    return lambda now: [((name,), read(model)) for name, model in now.models.items()]


def _by_vector_cache(read: Callable[[CacheStatistics], float]) -> _Reading:
    return lambda now: [
        ((name,), read(model.vector_cache)) for name, model in now.models.items() if model.vector_cache is not None
    ]


def _by_cuda_model(read: Callable[[CudaInfo], float]) -> _Reading:
    return lambda now: [((name,), read(model.cuda)) for name, model in now.models.items() if model.cuda is not None]


_READINGS: Mapping[str, _Reading] = {
    "pairwire_model_healthy": _by_model(lambda model: model.healthy),
    "pairwire_cuda_graphs": _by_cuda_model(lambda cuda: cuda.graphs),
    "pairwire_cuda_eager_shapes": _by_cuda_model(lambda cuda: cuda.eager),
    "pairwire_cuda_memory_bytes": _by_cuda_model(lambda cuda: cuda.memory_bytes),
    "pairwire_queue_tokens": _once(lambda now: now.queued_tokens),
    "pairwire_queue_limit_tokens": _once(lambda now: now.queue_limit_tokens),
    "pairwire_queue_rows": _once(lambda now: now.queued_rows),
    "pairwire_running_rows": _once(lambda now: now.running_rows),
    "pairwire_open_requests": _once(lambda now: now.open_requests),
    "pairwire_estimated_wait_seconds": _once(lambda now: now.estimated_wait_s),
    "pairwire_capacity_tokens_per_second": _once(lambda now: now.capacity_tokens_per_s),
    "pairwire_shared_rows": _by_model(lambda model: model.shared_rows),
    "pairwire_token_cache_hits": _by_model(lambda model: model.token_cache.hits),
    "pairwire_token_cache_misses": _by_model(lambda model: model.token_cache.misses),
    "pairwire_token_cache_bytes": _by_model(lambda model: model.token_cache.bytes),
    "pairwire_vector_cache_hits": _by_vector_cache(lambda cache: cache.hits),
    "pairwire_vector_cache_misses": _by_vector_cache(lambda cache: cache.misses),
    "pairwire_vector_cache_bytes": _by_vector_cache(lambda cache: cache.bytes),
    "pairwire_score_cache_hits": _once(lambda now: now.score_cache.hits),
    "pairwire_score_cache_misses": _once(lambda now: now.score_cache.misses),
    "pairwire_score_cache_bytes": _once(lambda now: now.score_cache.bytes),
}
"""What is read at each scrape; every other series is fed by events."""


def _labels(models: tuple[ModelInfo, ...]) -> Mapping[tuple[str, str], str]:
    """(rpc, model of the request) -> label; the rpc "" stands for any. An empty name means the only model that fits."""
    labels = {("", model.name): model.name for model in models}
    for rpc, kind in _KIND_OF_RPC.items():
        fitting = [model.name for model in models if model.kind is kind]
        if len(fitting) == 1:
            labels[rpc, ""] = fitting[0]
    able = [model.name for model in models if NliLogits.of(tuple(model.manifest.labels)) is not None]
    if len(able) == 1:
        labels["Classify", ""] = able[0]
    return labels
