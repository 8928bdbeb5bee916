"""A packed variant on an NVIDIA GPU, in a few minutes.

    python -m benchmarks.gpu --package models/demo --checkpoint CHECKPOINT --dataset stsb qnli scifact --data DIR

1. parity: scores against sentence-transformers in float32 on the same GPU, next to those of its float16
2. throughput: text in, scores out, against sentence-transformers' torch in float16 (and with FlashAttention 2 where it
   is installed) and the same graph with dynamic shapes; the systems take turns, medians of the repeats
3. the device: share of the measured peak of a matrix product, and of the time in which it had something to do
4. shapes: latency of every captured shape, and of the same run operator by operator

Runs from a plain checkout with what the machine has: onnxruntime-gpu, tokenizers, numpy, scipy and protobuf, and torch
with sentence-transformers for the rivals. CHECKPOINT is a directory; without it the rivals are left out. For load over
gRPC see benchmarks.load. Exit code 1 where scores differ by more than float16 explains.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.checkout import make_importable

make_importable()

import numpy as np  # noqa: E402

from pairwire.server.engine import EngineConfig  # noqa: E402
from pairwire.server.engine.config import CUDA_BATCH_TOKENS  # noqa: E402
from pairwire.server.errors import PairwireError  # noqa: E402

from ..datasets import Pair, load_pairs  # noqa: E402
from ..report import histogram, print_machine, print_table, write_json  # noqa: E402
from ..rivals import System  # noqa: E402
from . import device, parity, shapes  # noqa: E402
from .systems import DynamicShapes, Ours, Torch  # noqa: E402

LIMIT = 0.01
"""Largest difference of a probability from float32 that float16 explains."""
WARM_PAIRS = 64
COLUMNS = (
    "dataset",
    "system",
    "pairs",
    "pairs_per_s",
    "ratio_to_torch",
    "tokens_per_s",
    "padding",
    "of_peak",
    "device_busy",
)
OURS = "pairwire fp16"


def main() -> int:
    """Runs the parts; returns the exit code."""
    args = _arguments()
    print_machine()
    try:
        return _run(args)
    except PairwireError as error:
        raise SystemExit(f"benchmarks.gpu: {error}") from None


def _run(args: argparse.Namespace) -> int:
    rows: list[dict[str, object]] = []
    # The caches are off: every system tokenises every text in every repeat.
    config = EngineConfig(provider="cuda", cache_dir="none", token_cache_bytes=0, text_threads=args.text_threads)
    ours = Ours(args.package, config)
    _print_device(ours)
    known = Ours(args.package, dataclasses.replace(config, token_cache_bytes=1 << 28))
    systems: dict[str, System] = {
        OURS: ours,
        f"{OURS}, ids of texts cached": known,
        "same graph, dynamic shapes": DynamicShapes(args.package),
    }
    reference = _add_rivals(systems, args)
    passed = True
    peak = device.peak_flops()
    print(f"peak of a float16 product of {device.SIZE} x {device.SIZE}: {peak / 1e12:.0f} TFLOP/s")
    for dataset in args.dataset:
        pairs = list(dict.fromkeys(load_pairs(dataset, args.data, args.limit)))
        lengths = ours.tokens(pairs[:512])
        print(f"\n{dataset}: {len(pairs)} pairs; a sample: {histogram(lengths)}")
        if reference is not None:
            found = _parity(dataset, pairs[: args.parity_limit], reference, systems)
            print_table(found, parity.COLUMNS)
            passed &= all(float(str(row["max_abs_diff"])) <= LIMIT for row in found[:1])
            rows += found
        measured = _throughput(dataset, pairs, float(lengths.mean()), systems, args, peak)
        print_table(measured, COLUMNS)
        rows += measured
    ours.close()
    known.close()
    if not args.skip_shapes:
        found = shapes.measure_shapes(args.package, CUDA_BATCH_TOKENS)
        print("\nshapes (upload and download included)")
        print_table(found, shapes.COLUMNS)
        rows += found
    write_json(args.json, rows)
    if not passed:
        print(f"FAILED: a score differs from float32 by more than {LIMIT}")
    return 0 if passed else 1


def _print_device(ours: Ours) -> None:
    from pairwire.server.banner import start_up_table

    print(start_up_table([ours.info]))


def _add_rivals(systems: dict[str, System], args: argparse.Namespace) -> Torch | None:
    """Torch in float32, where there is a checkpoint."""
    if args.checkpoint is None:
        return None
    for batch_size in args.batch_size:
        systems[f"torch fp16, batch {batch_size}"] = Torch(args.checkpoint, batch_size, "float16")
        if importlib.util.find_spec("flash_attn") is not None:
            name = f"torch fp16, FlashAttention 2, batch {batch_size}"
            systems[name] = Torch(args.checkpoint, batch_size, "float16", "flash_attention_2")
    return Torch(args.checkpoint, args.batch_size[0], "float32")


def _parity(dataset: str, pairs: list[Pair], reference: Torch, systems: dict[str, System]) -> list[dict[str, object]]:
    scores = {name: system.predict(pairs) for name, system in systems.items()}
    return parity.differences(dataset, pairs, reference.predict(pairs), scores)


def _throughput(
    dataset: str,
    pairs: list[Pair],
    tokens_per_pair: float,
    systems: dict[str, System],
    args: argparse.Namespace,
    peak: float,
) -> list[dict[str, object]]:
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    before = {name: system.batches.copy() for name, system in systems.items() if isinstance(system, Ours)}
    for _ in range(args.repeats):
        for name, system in systems.items():
            gc.collect()
            system.predict(pairs[:WARM_PAIRS])
            seconds[name].append(_timed(lambda system=system: system.predict(pairs)))  # type: ignore[misc]
    rival = f"torch fp16, batch {args.batch_size[0]}"
    work = _operations(args.checkpoint, tokens_per_pair)
    rows: list[dict[str, object]] = []
    for name, times in seconds.items():
        rate = len(pairs) / float(np.median(times))
        row: dict[str, object] = {
            "part": "throughput",
            "dataset": dataset,
            "system": name,
            "pairs": len(pairs),
            "pairs_per_s": rate,
            "tokens_per_s": rate * tokens_per_pair,
            "of_peak": rate * work / peak if peak and work else None,
            "seconds": times,
        }
        if rival in seconds:
            row["ratio_to_torch"] = float(np.median(np.array(seconds[rival]) / np.array(times)))
        system = systems[name]
        if isinstance(system, Ours):
            ran = system.batches.since(before[name])
            row["padding"] = ran.padding
            row["device_busy"] = system.kernel_seconds(ran.counts) / (
                sum(times) * (1 + min(WARM_PAIRS, len(pairs)) / len(pairs))
            )
        rows.append(row)
    return rows


def _operations(checkpoint: Path | None, tokens: float) -> float:
    """Operations of a pair of that many tokens, counted as in docs/measurements.md; 0 without a checkpoint."""
    if checkpoint is None:
        return 0.0
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    return float(tokens * layers * (24 * hidden**2 + 4 * tokens * hidden))


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="a package with a cuda-fp16 variant")
    parser.add_argument("--checkpoint", type=Path, help="the checkpoint directory that it was exported from")
    parser.add_argument("--dataset", nargs="+", default=["builtin"], help="builtin, stsb, qnli, xquad, scifact")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--limit", type=int, default=4096, help="sample at most N pairs of a set (default 4096)")
    parser.add_argument("--parity-limit", type=int, default=1024, help="pairs that are compared (default 1024)")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 256], help="of torch (default 32 256)")
    parser.add_argument("--text-threads", type=int, default=0, help="of our engine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-shapes", action="store_true", help="leave out the latency of each shape")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
