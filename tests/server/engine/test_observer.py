import logging

import pytest

from pairwire.server.engine import BatchEvent, ModelKind, Outcome, RequestEvent
from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.engine.observer import SafeObserver

BATCH = BatchEvent(
    model="toy", bucket=Bucket(2, 8), rows=2, useful_tokens=10, computed_tokens=16, started_s=1.0, seconds=0.5
)
REQUEST = RequestEvent(
    model="toy",
    kind=ModelKind.CROSS_ENCODER,
    rows=2,
    tokens=10,
    outcome=Outcome.OK,
    queue_s=0.1,
    tokenize_s=0.2,
    compute_s=0.3,
)


class Recorder:
    def __init__(self, fails: bool = False) -> None:
        self.seen: list[object] = []
        self._fails = fails

    def _note(self, event: object) -> None:
        self.seen.append(event)
        if self._fails:
            raise RuntimeError("no room for metrics")

    def batch_finished(self, event: BatchEvent) -> None:
        self._note(event)

    def request_finished(self, event: RequestEvent) -> None:
        self._note(event)

    def model_health(self, model: str, healthy: bool) -> None:
        self._note((model, healthy))


def test_events_arrive() -> None:
    recorder = Recorder()
    observer = SafeObserver(recorder)
    observer.batch_finished(BATCH)
    observer.request_finished(REQUEST)
    observer.model_health("toy", False)
    assert recorder.seen == [BATCH, REQUEST, ("toy", False)]


def test_no_observer_is_fine() -> None:
    observer = SafeObserver(None)
    observer.batch_finished(BATCH)
    observer.request_finished(REQUEST)
    observer.model_health("toy", True)


def test_an_observer_that_crashes_is_logged_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(fails=True)
    observer = SafeObserver(recorder)
    with caplog.at_level(logging.ERROR):
        observer.batch_finished(BATCH)
        observer.request_finished(REQUEST)
    assert recorder.seen == [BATCH]
    assert "no room for metrics" in caplog.text
    assert len(caplog.records) == 1
