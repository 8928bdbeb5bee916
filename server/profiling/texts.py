"""Text in, scores out: the engine over real texts, and which stage took which share of the cores."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cpus import usable_cpus
from ..engine import Engine, EngineConfig, Model, ModelKind, load_model
from ..engine.batching.cost import Costs
from ..engine.batching.planner import OptimalCover, Plan, Planner, PoolView
from ..engine.text.encoder import EncodedRows
from ..runtime.base import Float32Array, Runtime, RuntimeInfo, TokenBatch
from .products import Work
from .timers import Stopwatch, Timers

REQUEST = 256
"""Inputs of a request; several at once keep the workers busy while the next are tokenised."""
IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class TextProfile:
    """One pass over the texts. Stages are CPU seconds; all but ``idle_s`` were worked."""

    inputs: int
    workers: int
    cores: int
    """CPUs that the workers may use: one each, as far as there are this many."""
    wall_s: float
    useful_tokens: int
    computed_tokens: int
    """Padding included."""
    batches: int
    useful: int
    """Operations of the tokens in the model as it was trained."""
    tokenise_s: float
    """The threads that tokenise and cut."""
    loop_s: float
    """The event loop."""
    plan_s: float
    assemble_s: float
    """Token ids of rows -> the arrays of a batch."""
    useful_kernels_s: float
    """The runtime's time but for padding."""
    padding_s: float
    """The runtime's time, by the share of its operations that padding was."""
    rest_s: float
    """What else the workers do: locks, queue, results; and the threads of nobody here."""

    @property
    def worked_s(self) -> float:
        """CPU seconds of everything."""
        stages = (self.tokenise_s, self.loop_s, self.plan_s, self.assemble_s, self.rest_s)
        return sum(stages) + self.useful_kernels_s + self.padding_s

    @property
    def idle_s(self) -> float:
        """Seconds of the cores in which nothing here ran: nothing to do, or others had them."""
        return max(0.0, self.cores * self.wall_s - self.worked_s)

    @property
    def padding_share(self) -> float:
        """Of computed tokens."""
        return 1 - self.useful_tokens / self.computed_tokens


class _Totals:
    """What ran since the beginning. Guarded by a lock: workers add to it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lock = threading.Lock()
        self.batches = self.useful_tokens = self.computed_tokens = self.useful = self.computed = 0

    def add(self, batch: TokenBatch) -> None:
        useful = self._work.operations(batch.lengths)
        computed = self._work.operations([batch.length] * batch.rows)
        tokens = int(batch.lengths.sum())
        with self._lock:
            self.batches += 1
            self.useful_tokens += tokens
            self.computed_tokens += batch.rows * batch.length
            self.useful += useful
            self.computed += computed


@dataclass(frozen=True, slots=True)
class _TimedRuntime:
    runtime: Runtime
    watch: Stopwatch
    totals: _Totals

    @property
    def info(self) -> RuntimeInfo:
        return self.runtime.info

    def run(self, batch: TokenBatch) -> Float32Array:
        with self.watch.stage("runtime"):
            values = self.runtime.run(batch)
        self.totals.add(batch)
        return values

    def interrupt(self, thread: int) -> None:
        self.runtime.interrupt(thread)

    def close(self) -> None:
        self.runtime.close()


@dataclass(frozen=True, slots=True)
class _TimedPlanner:
    planner: Planner
    watch: Stopwatch

    def __call__(self, pool: PoolView, costs: Costs, *, share_s: float, now: float) -> Plan:
        with self.watch.stage("plan"):
            return self.planner(pool, costs, share_s=share_s, now=now)


@dataclass(frozen=True, eq=False, kw_only=True)
class _TimedModel(Model):
    watch: Stopwatch

    def run(self, rows: Sequence[tuple[EncodedRows, int]], length: int) -> Float32Array:
        with self.watch.stage("run"):
            return Model.run(self, rows, length)


def profile_texts(
    package: Path, config: EngineConfig, inputs: Sequence[tuple[str, ...]], work: Work, timers: Timers, *, repeats: int
) -> TextProfile:
    """The pass of median wall time, of ``repeats`` after one that warms. Inputs are pairs, or texts of one each.

    Raises:
        StartupError: the package cannot be loaded.
        InvalidInput: a text that cannot be scored.
    """
    return asyncio.run(_profile(package, config, inputs, work, timers, repeats))


async def _profile(
    package: Path, config: EngineConfig, inputs: Sequence[tuple[str, ...]], work: Work, timers: Timers, repeats: int
) -> TextProfile:
    loaded = await asyncio.to_thread(load_model, package, config)
    watch = Stopwatch(timers)
    fields = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}
    found = []
    totals = _Totals(work)
    model = _TimedModel(**fields | {"runtime": _TimedRuntime(loaded.runtime, watch, totals)}, watch=watch)
    async with Engine([model], config=config, planner=_TimedPlanner(OptimalCover(), watch)) as engine:
        await _pass(engine, model, inputs)
        for _ in range(repeats):
            found.append(await _timed_pass(engine, model, inputs, timers, watch, totals))
    median = statistics.median_low(profile.wall_s for profile in found)
    return next(profile for profile in found if profile.wall_s == median)


async def _pass(engine: Engine, model: Model, inputs: Sequence[tuple[str, ...]]) -> None:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def request(part: Sequence[tuple[str, ...]]) -> None:
        async with gate:
            if model.kind is ModelKind.CROSS_ENCODER:
                await engine.score([(first, second) for first, second in part])
            elif model.kind is ModelKind.SPARSE_ENCODER:
                await engine.embed_sparse([text for (text,) in part])
            else:
                await engine.embed([text for (text,) in part])

    async with asyncio.TaskGroup() as group:
        for start in range(0, len(inputs), REQUEST):
            group.create_task(request(inputs[start : start + REQUEST]))


async def _timed_pass(
    engine: Engine,
    model: Model,
    inputs: Sequence[tuple[str, ...]],
    timers: Timers,
    watch: Stopwatch,
    totals: _Totals,
) -> TextProfile:
    def reading() -> dict[str, float]:
        threads = _by_thread(timers)
        stages = {name: watch.seconds(name) for name in ("run", "runtime", "plan")}
        counts = {name: float(value) for name, value in vars(totals).items() if isinstance(value, int)}
        return {**threads, **stages, **counts, "process": timers.process(), "loop": timers.thread()}

    before, began = reading(), timers.wall()
    await _pass(engine, model, inputs)
    wall_s = timers.wall() - began
    taken = {name: value - before[name] for name, value in reading().items()}
    useful = taken["useful"] / taken["computed"]
    workers = engine.statistics().workers
    return TextProfile(
        inputs=len(inputs),
        workers=workers,
        cores=min(workers, usable_cpus()),
        wall_s=wall_s,
        useful_tokens=round(taken["useful_tokens"]),
        computed_tokens=round(taken["computed_tokens"]),
        batches=round(taken["batches"]),
        useful=round(taken["useful"]),
        tokenise_s=taken["text"],
        loop_s=taken["loop"],
        plan_s=taken["plan"],
        assemble_s=taken["run"] - taken["runtime"],
        useful_kernels_s=taken["runtime"] * useful,
        padding_s=taken["runtime"] * (1 - useful),
        rest_s=max(0.0, taken["process"] - taken["loop"] - taken["text"] - taken["plan"] - taken["run"]),
    )


def _by_thread(timers: Timers) -> dict[str, float]:
    """CPU seconds of the engine's threads that tokenise."""
    names = [thread for thread in threading.enumerate() if thread.name.startswith("pairwire-text")]
    return {"text": sum(timers.thread_of(thread.ident) for thread in names if thread.ident is not None)}
