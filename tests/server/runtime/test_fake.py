import threading

import numpy as np
import pytest

from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime

BATCH = TokenBatch(
    input_ids=np.array([[1, 2, 3], [4, 9, 9]], np.int32),
    token_type_ids=np.zeros((2, 3), np.int32),
    lengths=np.array([3, 1], np.int32),
)


def test_a_row_gives_the_sum_of_its_ids_without_padding() -> None:
    runtime = FakeRuntime(outputs=2)
    values = runtime.run(BATCH)
    assert values.tolist() == [[6.0, 6.0], [4.0, 4.0]]
    assert values.dtype == np.float32
    assert runtime.batches == [BATCH]
    assert runtime.info.provider == "FakeExecutionProvider"


def test_it_computes_what_it_is_given() -> None:
    assert FakeRuntime(lambda batch: batch.lengths[:, None].astype(np.float32)).run(BATCH).tolist() == [[3.0], [1.0]]


def test_it_fails_when_told_to() -> None:
    runtime = FakeRuntime(fail_on={1})
    runtime.run(BATCH)
    with pytest.raises(RuntimeError, match="call 1 was set to fail"):
        runtime.run(BATCH)
    runtime.run(BATCH)
    runtime.broken = True
    with pytest.raises(RuntimeError, match="call 3"):
        runtime.run(BATCH)


def test_it_waits_at_its_gate_and_says_that_it_is_there() -> None:
    gate = threading.Event()
    runtime = FakeRuntime(gate=gate)
    thread = threading.Thread(target=runtime.run, args=(BATCH,))
    thread.start()
    assert runtime.started.acquire(timeout=60)
    assert thread.is_alive()
    gate.set()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_it_tells_of_each_run_and_of_its_end() -> None:
    seen: list[TokenBatch] = []
    runtime = FakeRuntime(on_run=seen.append)
    runtime.run(BATCH)
    assert seen == [BATCH]
    assert not runtime.closed
    runtime.close()
    assert runtime.closed
