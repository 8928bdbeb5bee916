"""The largest batches run on all workers at once before anything is served."""

import threading

import numpy as np
import pytest

from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.engine.config import EngineConfig
from pairwire.server.engine.models.building import build_model
from pairwire.server.engine.models.memory import bring_to_height, largest_batches
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.errors import PackageInvalid
from pairwire.server.runtime.base import Float32Array, TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from tests.server.engine import toys


class Together(FakeRuntime):
    """Runs nothing until as many batches are inside as are expected."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(workers, timeout=120)
        self.waits = False

    def run(self, batch: TokenBatch) -> Float32Array:
        if self.waits:
            self.barrier.wait()
        return super().run(batch)


def test_every_worker_runs_the_largest_batches_at_the_same_time() -> None:
    manifest = toys.cross_encoder_manifest()
    manifest.variants.add(name="long", unpadded_from=20)
    runtime, encoder = Together(3), TextEncoder(toys.wordpiece(), TextRules(max_length=64))
    config = EngineConfig(warmup_s=0.01, batch_tokens=128)
    model = build_model(manifest, encoder, runtime, variant="long", config=config)
    assert largest_batches(model) == [Bucket(1, 64), Bucket(7, 18), Bucket(16, 8)]
    measured, runtime.waits = len(runtime.batches), True
    bring_to_height([model], 3)
    ran = [(batch.rows, batch.length) for batch in runtime.batches[measured:]]
    assert sorted(ran) == sorted([(1, 64), (7, 18), (16, 8)] * 3)


def test_a_model_that_cannot_run_them_is_not_served() -> None:
    model = toys.toy_model()

    class Broken(FakeRuntime):
        def run(self, batch: TokenBatch) -> Float32Array:
            raise RuntimeError("bad allocation")

    broken = build_model(model.manifest, model.encoder, Broken(), costs=model.costs)
    with pytest.raises(PackageInvalid, match=r"2 workers cannot run .* rows of .* tokens at once \(bad allocation\)"):
        bring_to_height([broken], 2)
    assert np.isfinite(model.costs.row_seconds()).all()
