"""What can be set on an engine, as one value object that checks itself."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..cpus import usable_cpus
from ..errors import ConfigInvalid
from .aliases import read_aliases

BATCH_TOKENS = 512
"""Most tokens of a batch on a CPU where neither the settings nor the package say."""
CUDA_BATCH_TOKENS = 16_384
"""The same on a GPU."""
CUDA_WORKERS = 2
"""While one batch runs on the device, the next is made ready."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How an engine uses the machine.

    Raises:
        ConfigInvalid: on construction, when a value cannot work.
    """

    provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run. auto means a GPU where onnxruntime-gpu is installed and the package has a variant for it."""
    cuda_device: int = -1
    """Number of the GPU. -1: the first; with --processes, GPUs are assigned round-robin."""
    cuda_memory_bytes: int = 0
    """Most GPU memory for weights and activations of one model; 0 means no limit."""
    cuda_graphs: bool = True
    """Capture each shape of a batch as a CUDA graph; false runs operator by operator, to find faults."""
    workers: int = 0
    """Threads that run batches, shared by all models; 0 means one for each usable CPU, or two for a GPU."""
    intra_op_threads: int = 1
    """Threads of one run inside ONNX Runtime."""
    batch_tokens: int = 0
    """Most tokens of a batch, padding included; one row alone may be longer. 0 means what `pairwire tune` found best
    for the package, or else 512 on a CPU and 16384 on a GPU."""
    queue_tokens: int = 1_048_576
    """Most tokens that may wait; requests beyond that are refused."""
    queue_s: float = 2.0
    """Longest wait in seconds, by the estimate, of a request that is let in, and four times what it takes itself; what
    would wait longer is refused."""
    low_queue_s: float = 30.0
    """The same for requests of LOW priority."""
    caller_weights: tuple[str, ...] = ()
    """Weights of callers that share the machine, as NAME=WEIGHT: key:NAME for one that the caller key names, peer:HOST
    for one that the host names; all others have 1."""
    aliases: tuple[str, ...] = ()
    """Other names for models, as ALIAS=MODEL, or ALIAS=MODEL:90,OTHER:10 to give each its share of the calls."""
    latency_target_ms: float = 0.0
    """Longest time of a batch of several pairs or texts, by the estimate: a small request waits for no longer batch of
    others, and large batches, which are cheaper, are not made. 0 for no such limit."""
    default_deadline_s: float = 0.0
    """Deadline in seconds of requests that come without one; 0 gives them none."""
    variant: str = ""
    """Variant to load from each package, e.g. ``cpu-fp32``; empty means the best one for the provider."""
    text_threads: int = 0
    """Threads that tokenise. 0: one for every four usable CPUs (every two with a GPU), at least one, at most eight."""
    token_cache_bytes: int = 64 << 20
    """Memory for each model's token ids of recent texts, by digest; 0 keeps none."""
    score_cache_bytes: int = 0
    """Memory for outputs of recent pairs and texts, by digest, all models together; 0 keeps none."""
    vector_cache_bytes: int = 64 << 20
    """Memory for each bi-encoder's vectors of documents that a first stage has seen, by digest; 0 keeps none."""
    warmup_s: float = 1.5
    """Seconds to measure what batches cost, at start-up, for each model."""
    cache_dir: str = "auto"
    """Directory that keeps measured costs, so that a restart does not measure again; auto means pairwire in
    $XDG_CACHE_HOME or ~/.cache, none measures at every start."""
    probe_interval_s: float = 1.0
    """Seconds after which an idle worker retries a model whose last run failed."""
    hang_timeout_s: float = 30.0
    """Seconds without a sign of life after which a run is stopped (but not before 20 times what it should take); the
    process ends with exit code 3 if the run, or the event loop, cannot be. 0 never."""

    def __post_init__(self) -> None:
        least = {
            "cuda_device": -1,
            "cuda_memory_bytes": 0,
            "workers": 0,
            "intra_op_threads": 1,
            "batch_tokens": 0,
            "queue_tokens": 1,
            "text_threads": 0,
            "token_cache_bytes": 0,
            "score_cache_bytes": 0,
            "vector_cache_bytes": 0,
        }
        for name, minimum in least.items():
            value = getattr(self, name)
            if value < minimum:
                raise ConfigInvalid(f"{name}: {value} cannot work; give at least {minimum}")
        if self.provider not in ("auto", "cpu", "cuda"):
            raise ConfigInvalid(f"provider: {self.provider!r} is none of auto, cpu, cuda")
        if not 0 <= self.hang_timeout_s <= 1e6:
            raise ConfigInvalid(f"hang_timeout_s: {self.hang_timeout_s} cannot work; give a number from 0 to 1e+06")
        if not self.latency_target_ms >= 0:
            raise ConfigInvalid(
                f"latency_target_ms: {self.latency_target_ms} cannot work; give milliseconds, 0 for none"
            )
        if not self.default_deadline_s >= 0:
            raise ConfigInvalid(
                f"default_deadline_s: {self.default_deadline_s} cannot work; give seconds, or 0 for none"
            )
        for name in ("warmup_s", "probe_interval_s", "queue_s", "low_queue_s"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigInvalid(f"{name}: {value} cannot work; give a number of seconds above 0")
        self.weights()
        read_aliases(self.aliases)
        try:
            known = bool(self.cache_dir and Path(self.cache_dir).expanduser())
        except RuntimeError:  # ~user, of a user that does not exist
            known = False
        if not known:
            raise ConfigInvalid(f"cache_dir: {self.cache_dir!r} cannot work; give a directory, auto or none")

    @property
    def latency_target_s(self) -> float:
        """Longest time of a batch of several rows; +inf for no limit."""
        return self.latency_target_ms / 1000 or math.inf

    def weights(self) -> dict[str, float]:
        """Weights by caller. Raises ConfigInvalid where one is no positive number."""
        found = {}
        for entry in self.caller_weights:
            name, _, weight = entry.rpartition("=")
            try:
                found[name] = float(weight)
            except ValueError:
                found[name] = 0.0
            if not (name and 0 < found[name] < math.inf):
                raise ConfigInvalid(f"caller_weights: {entry!r} is not NAME=WEIGHT with a weight above 0")
        return found

    def worker_count(self, *, cuda: bool = False) -> int:
        """Workers in force: ``workers``, or else one for each group of ``intra_op_threads`` usable CPUs.

        ``cuda``: all models run on a GPU.
        """
        return self.workers or (CUDA_WORKERS if cuda else max(1, usable_cpus() // self.intra_op_threads))

    def batch_token_limit(self, tuned: int = 0) -> int:
        """Most tokens of a batch in force, where a package was ``tuned`` to this many; 0 where it was not."""
        return self.batch_tokens or tuned or BATCH_TOKENS

    def cuda_batch_token_limit(self, tuned: int = 0) -> int:
        """As ``batch_token_limit``, on a GPU."""
        return self.batch_tokens or tuned or CUDA_BATCH_TOKENS

    def text_thread_count(self, *, cuda: bool = False) -> int:
        """Tokenising threads in force; ``cuda``: all models run on a GPU, and leave the CPUs to text."""
        return self.text_threads or min(8, max(1, usable_cpus() // (2 if cuda else 4)))

    def cost_directory(self) -> Path | None:
        """Where measured costs are kept; None where they are not: turned off, or a user without a home."""
        if self.cache_dir == "none":
            return None
        if self.cache_dir != "auto":
            return Path(self.cache_dir).expanduser() / "costs"
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        try:
            # The specification says that a relative path there is not valid and has to be ignored.
            base = given if given.is_absolute() else Path.home() / ".cache"
        except RuntimeError:
            return None
        return base / "pairwire" / "costs"
