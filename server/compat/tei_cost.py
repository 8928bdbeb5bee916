"""What text-embeddings-inference tells of a request's cost: in the answer, and in headers."""

from __future__ import annotations

from dataclasses import dataclass

from pairwire.foreign import tei_pb2

from ..engine.results import ModelInfo, Timing, Usage
from ..rpc.method import Headers

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request cost. Times in seconds."""

    characters: int
    """Of all texts that were read, a query counted with every document."""
    tokens: int
    total_s: float
    tokenize_s: float
    queue_s: float
    compute_s: float
    compute_type: str
    """``cpu`` or ``gpu``."""

    @classmethod
    def of(cls, info: ModelInfo, characters: int, total_s: float, usage: Usage, timing: Timing) -> Cost:
        """The cost of a request that this model answered in ``total_s``."""
        where = "cpu" if info.runtime.provider == _CPU else "gpu"
        return cls(
            characters, usage.tokens, total_s, timing.tokenize_s, timing.queue_s, timing.compute_s, compute_type=where
        )

    def message(self) -> tei_pb2.Metadata:
        """As it stands in the answer."""
        return tei_pb2.Metadata(
            compute_chars=self.characters,
            compute_tokens=self.tokens,
            total_time_ns=_whole(self.total_s, 1e9),
            tokenization_time_ns=_whole(self.tokenize_s, 1e9),
            queue_time_ns=_whole(self.queue_s, 1e9),
            inference_time_ns=_whole(self.compute_s, 1e9),
        )

    def headers(self) -> Headers:
        """As it stands before the answer; times in whole milliseconds."""
        total_ms = str(_whole(self.total_s, 1e3))
        return (
            ("x-compute-type", self.compute_type),
            ("x-compute-time", total_ms),
            ("x-compute-characters", str(self.characters)),
            ("x-compute-tokens", str(self.tokens)),
            ("x-total-time", total_ms),
            ("x-tokenization-time", str(_whole(self.tokenize_s, 1e3))),
            ("x-queue-time", str(_whole(self.queue_s, 1e3))),
            ("x-inference-time", str(_whole(self.compute_s, 1e3))),
        )


def _whole(seconds: float, a_second: float) -> int:
    return max(0, int(seconds * a_second))
