"""What batches cost: shapes and their seconds, from a recording, a model of a device, or measured now.

A recording holds more than the engine measures at warm-up, because the rivals build larger batches. It is read twice:
`truth` is what a batch of any shape takes in the simulation, `engine_costs` what the engine would know of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pairwire.server.clock import SystemClock
from pairwire.server.engine import EngineConfig
from pairwire.server.engine.batching.buckets import Bucket, Ladder
from pairwire.server.engine.batching.cost import CostTable, measure
from pairwire.server.engine.models.loading import load_model
from pairwire.server.engine.models.model import Model

from ..report import machine

MODELLED = "modelled-gpu"
FOLDER = Path(__file__).parent / "tables"
_SHORTEST = 8
"""The shortest row of every ladder; shorter ones cost what it costs."""
_RECORDED_TOKENS = (512, 2048, 4096)
"""Token budgets to measure under: the engine's own, and what the rivals' batches reach. Beyond, in proportion."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """Seconds of some shapes of one model on one device."""

    name: str
    measured: bool
    """False: a model of a device, not a measurement."""
    about: str
    """What it was measured on, or how it was made up; for people."""
    device: str
    """``cpu`` or ``gpu``; some rivals have another limit on each."""
    max_length: int
    unpadded_from: int
    """From this length on the engine runs rows with rows of their own length only; 0 for nowhere."""
    batch_tokens: int
    """The engine's token budget there."""
    workers: int
    """Batches that run at once there."""
    shapes: Mapping[Bucket, float]

    def ladder(self) -> Ladder:
        """The engine's ladder for that model."""
        return Ladder.up_to(self.max_length, unpadded_from=self.unpadded_from)

    def engine_costs(self) -> CostTable:
        """What the engine knows: the shapes within its budget, on its ladder. Fresh, because it learns."""
        known = {
            bucket: seconds
            for bucket, seconds in self.shapes.items()
            if bucket.rows == 1 or bucket.tokens <= self.batch_tokens
        }
        return CostTable(self.ladder(), known, batch_tokens=self.batch_tokens)

    def truth(self) -> Truth:
        """What any batch takes."""
        return Truth(self)


class Truth:
    """Seconds of every shape, interpolated as the engine does it, from all shapes of a recording, at every length."""

    def __init__(self, recording: Recording) -> None:
        every = Ladder(tuple(range(_SHORTEST, recording.max_length + 1)))
        most = max(bucket.tokens for bucket in recording.shapes)
        self._costs = CostTable(every, recording.shapes, batch_tokens=most)

    def __call__(self, rows: int, length: int) -> float:
        """Seconds of a batch of that shape."""
        return self._costs.seconds(rows, max(_SHORTEST, length))


def read(path: Path) -> Recording:
    """A recording that ``write`` wrote.

    Raises:
        SystemExit: it is not one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shapes = {Bucket(rows, length): seconds for rows, length, seconds in found.pop("shapes")}
        return Recording(**found, shapes=shapes)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SystemExit(f"{path}: not a recorded cost table ({error})") from None


def write(recording: Recording, path: Path) -> None:
    """As JSON, one shape a line."""
    fields = {name: getattr(recording, name) for name in recording.__slots__ if name != "shapes"}
    head = json.dumps(fields, indent=1)[:-2]
    rows = sorted(recording.shapes.items(), key=lambda item: (item[0].length, item[0].rows))
    lines = ",\n  ".join(f"[{bucket.rows}, {bucket.length}, {seconds:.6g}]" for bucket, seconds in rows)
    path.write_text(f'{head},\n "shapes": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


def shipped() -> dict[str, Path]:
    """The recordings next to this module, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def measure_package(package: Path, variant: str, passes: int = 3, budget_s: float = 8.0) -> Recording:
    """Measures a package here and now, by the engine's own measurement under several token budgets.

    Of all passes the fastest counts, shape by shape: noise only ever adds. ``budget_s``: for each budget in each pass.

    Raises:
        PackageInvalid: the package cannot be loaded.
    """
    config = EngineConfig(variant=variant, warmup_s=0.05, cache_dir="none")
    model = load_model(package, config)
    shapes = _measure(model, passes, budget_s)
    facts = machine()
    known = next((entry for entry in model.manifest.variants if entry.name == model.variant), None)
    return Recording(
        name=f"{model.name}-{model.variant}",
        measured=True,
        about=(
            f"{model.manifest.architecture}, {model.variant}, one thread a run, on {facts['processor']}, "
            f"ONNX Runtime {model.runtime.info.version}, {facts['date']}"
        ),
        device="cpu",
        max_length=model.encoder.rules.max_length,
        unpadded_from=known.unpadded_from if known else 0,
        batch_tokens=config.batch_token_limit(),
        workers=config.worker_count(),
        shapes=shapes,
    )


def _measure(model: Model, passes: int, budget_s: float) -> dict[Bucket, float]:
    shapes: dict[Bucket, float] = {}
    fill = model.encoder.blank
    for batch_tokens in _RECORDED_TOKENS * passes:
        costs = measure(
            model.runtime, model.ladder, SystemClock(), batch_tokens=batch_tokens, budget_s=budget_s, fill=fill
        )
        for bucket, seconds in costs.measured.items():
            shapes[bucket] = min(seconds, shapes.get(bucket, seconds))
        logger.info("measured %d shapes under %d tokens", len(costs.measured), batch_tokens)
    return shapes


def modelled_gpu() -> Recording:
    """A made-up accelerator: so much for a launch, so much for a token, attention that grows with the length.

    Nothing of it was measured; it exists to show how the rules behave where small batches waste the device.
    """
    launch_s, tokens_per_s, batch_tokens = 1.0e-3, 2.0e6, 8192
    shapes = {
        Bucket(rows, length): launch_s + rows * length * (1 + length / 1024) / tokens_per_s
        for length in (8, 16, 32, 64, 128, 256, 384, 512)
        for rows in (1, batch_tokens // length, 2 * batch_tokens // length)
    }
    return Recording(
        name=MODELLED,
        measured=False,
        about="a model, not a measurement: 1 ms a launch, 2 million tokens a second, half of them at 1024 tokens a row",
        device="gpu",
        max_length=512,
        unpadded_from=0,
        batch_tokens=batch_tokens,
        workers=1,
        shapes=shapes,
    )
