"""What scores pairs on a GPU: text in, scores out, tokenising included."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.engine.models.loading import load_model
from pairwire.server.engine.models.manifest import head_of, rules_of
from pairwire.server.engine.observer import BatchEvent, RequestEvent
from pairwire.server.engine.results import ModelInfo
from pairwire.server.engine.text.encoder import TextEncoder
from pairwire.server.package import read_package
from pairwire.server.runtime.cuda_session import CudaOptions, open_session
from pairwire.server.runtime.ort import ort
from pairwire.server.runtime.packed import PackedShape

from ..datasets import Pair

_PARALLEL = "TOKENIZERS_PARALLELISM"
IN_FLIGHT = 8
"""Requests of ours at a time."""

Scores = npt.NDArray[np.float32]


class Ours:
    """The engine in process: all pairs at once, as requests of ``pairs_per_request``."""

    def __init__(self, package: Path, config: EngineConfig, pairs_per_request: int = 256) -> None:
        self.batches = Batches()
        self._runner = asyncio.Runner()
        self._model = load_model(package, config)
        self._engine = self._runner.run(self._open(config))
        self._size = pairs_per_request

    @property
    def info(self) -> ModelInfo:
        """Of the one model."""
        return next(iter(self._engine.models.values()))

    def kernel_seconds(self, counts: Mapping[int, int]) -> float:
        """Seconds that batches of this many tokens (tokens -> number of batches) took the device when it was warmed."""
        costs = self._model.costs
        return sum(count * costs.seconds(1, tokens) / costs.factor for tokens, count in counts.items())

    async def _open(self, config: EngineConfig) -> Engine:
        return Engine([self._model], config=config, observer=self.batches)

    def predict(self, pairs: Sequence[Pair]) -> Scores:
        """Scores float32 [pairs]."""
        return self._runner.run(self._score(pairs))

    def tokens(self, pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
        """Tokens of each pair."""
        return np.array([self._runner.run(self._engine.score([pair])).usage.tokens for pair in pairs])

    def close(self) -> None:
        """Stops the engine."""
        self._runner.run(self._engine.close())
        self._runner.close()

    async def _score(self, pairs: Sequence[Pair]) -> Scores:
        room = asyncio.Semaphore(IN_FLIGHT)

        async def score(part: Sequence[Pair]) -> Scores:
            async with room:
                return (await self._engine.score(part)).scores[:, 0]

        parts = [pairs[at : at + self._size] for at in range(0, len(pairs), self._size)]
        return np.concatenate(await asyncio.gather(*map(score, parts)))


@dataclass(slots=True)
class Batches:
    """An observer that adds up what batches computed."""

    tokens: int = 0
    padded: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    """Batches by their tokens, padding included."""

    @property
    def padding(self) -> float:
        """Share of the computed tokens."""
        return self.padded / max(1, self.tokens + self.padded)

    def copy(self) -> Batches:
        """As it is now."""
        return Batches(self.tokens, self.padded, Counter(self.counts))

    def since(self, before: Batches) -> Batches:
        """What has come since."""
        return Batches(self.tokens - before.tokens, self.padded - before.padded, self.counts - before.counts)

    def batch_finished(self, event: BatchEvent) -> None:
        """Counts it."""
        self.tokens += event.useful_tokens
        self.padded += event.computed_tokens - event.useful_tokens
        self.counts[event.computed_tokens] += 1

    def request_finished(self, event: RequestEvent) -> None:
        """Nothing."""

    def model_health(self, model: str, healthy: bool) -> None:
        """Nothing."""


class Torch:
    """``sentence_transformers.CrossEncoder`` in torch on the GPU, in ``dtype``, with torch's fused attention."""

    def __init__(self, checkpoint: Path, batch_size: int, dtype: str, attention: str = "sdpa") -> None:
        import torch
        from sentence_transformers import CrossEncoder

        # The reference is float32, not TF32.
        torch.backends.cuda.matmul.allow_tf32 = False
        self._model = CrossEncoder(
            str(checkpoint),
            device="cuda",
            model_kwargs={"torch_dtype": getattr(torch, dtype), "attn_implementation": attention},
        )
        self._batch_size = batch_size

    def predict(self, pairs: Sequence[Pair]) -> Scores:
        """Scores float32 [pairs]."""
        with _parallel_tokenizer():
            scores = self._model.predict(list(pairs), batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32)


@contextmanager
def _parallel_tokenizer() -> Iterator[None]:
    """The rival's tokenizer uses all cores, as it does by default; our engine has turned that off for the process."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before


class DynamicShapes:
    """The same graph without fixed shapes, bindings or captures: 32 pairs in order of arrival, exact shapes."""

    def __init__(self, package: Path, batch_size: int = 32) -> None:
        found = read_package(package)
        variant = found.variant(provider="cuda")
        rules = rules_of(found.manifest)
        self._encoder = TextEncoder.from_file(found.tokenizer_file, rules)
        self._head = head_of(found.manifest)
        options = CudaOptions(longest=rules.max_length, most_tokens=1, capture=False)
        self._session: ort.InferenceSession = open_session(found.graph_file(variant), options)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._batch_size = batch_size

    def predict(self, pairs: Sequence[Pair]) -> Scores:
        """Scores float32 [pairs]."""
        parts = [pairs[at : at + self._batch_size] for at in range(0, len(pairs), self._batch_size)]
        return np.concatenate([self._batch(part) for part in parts])

    def _batch(self, pairs: Sequence[Pair]) -> Scores:
        rows = self._encoder.encode_pairs([first for first, _ in pairs], [second for _, second in pairs])
        batch = self._encoder.pack([(rows, at) for at in range(len(pairs))])
        tokens = int(batch.lengths.sum())
        shape = PackedShape(length=int(batch.lengths.max()), tokens=tokens, rows=batch.rows)
        buffer = shape.stage(batch)
        ids, types, positions, cumulative = shape.begins()
        feeds = {
            "input_ids": buffer[ids : ids + tokens],
            "token_type_ids": buffer[types : types + tokens],
            "position_ids": buffer[positions : positions + tokens],
            "cumulative_lengths": buffer[cumulative : cumulative + shape.rows + 1],
            "token_offset": shape.token_offset(batch.lengths),
        }
        (logits,) = self._session.run(None, {name: feeds[name] for name in self._inputs})
        return self._head.scores(np.asarray(logits, dtype=np.float32))[:, 0]
