"""What the text stage costs next to the model: CPU microseconds a pair for tokenising, assembling batches, computing.

    python -m benchmarks.text models/demo --dataset builtin
    python -m benchmarks.text models/demo --shape tinybert-l2 --dataset stsb scifact --data DIR

CPU time of the calling thread, so that other work on the machine does not count. Text is tokenised cold (every text is
new) and warm (every text is in the token cache). Batches are what an engine with much to do runs: rows of one length of
the ladder, up to 512 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pairwire.server.engine import EngineConfig, Model, load_model
from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.encoder import EncodedRows

from .checkpoints import export_package
from .datasets import Pair, load_pairs
from .report import histogram, print_machine, print_table, write_json
from .shapes import SHAPES, save_shape

COLUMNS = (
    "dataset",
    "model",
    "variant",
    "tokens",
    "cold_us",
    "warm_us",
    "assemble_us",
    "compute_us",
    "cold_share",
    "warm_share",
)
_WARMUP_S = 0.2
_CACHE_BYTES = 256 << 20


def main() -> None:
    """Runs the benchmark."""
    args = _arguments()
    print_machine()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        models = [_load(package, args) for package in [*args.package, *_shaped(args, Path(scratch))]]
        for dataset in args.dataset:
            pairs = load_pairs(dataset, args.data, args.limit)
            rows += [_measure(dataset, model, pairs, args.repeats) for model in models]
    print()
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def _shaped(args: argparse.Namespace, work: Path) -> list[Path]:
    if not args.shape:
        return []
    source = save_shape(SHAPES[args.shape], args.package[0] / "tokenizer.json", work / args.shape)
    return [export_package(str(source), work, ["int8"])]


def _load(package: Path, args: argparse.Namespace) -> Model:
    return load_model(package, EngineConfig(variant=args.variant, warmup_s=_WARMUP_S))


def _measure(dataset: str, model: Model, pairs: Sequence[Pair], repeats: int) -> dict[str, object]:
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    encode = model.encoder.encode_pairs
    cache = ByteCache(_CACHE_BYTES)
    encoded = encode(firsts, seconds, cache=cache)
    print(f"\n{dataset}, {model.name}: {histogram(encoded.lengths)}")
    batches = _batches(model, encoded)
    assembled = [model.encoder.assemble(rows, length) for rows, length in batches]

    def one_by_one(cache: ByteCache) -> None:
        for first, second in pairs:
            encode([first], [second], cache=cache)

    def assemble() -> None:
        for rows, length in batches:
            model.encoder.assemble(rows, length)

    def compute() -> None:
        for batch in assembled:
            model.runtime.run(batch)

    steps: dict[str, Callable[[], None]] = {
        "cold_us": lambda: one_by_one(ByteCache(_CACHE_BYTES)),
        "warm_us": lambda: one_by_one(cache),
        "assemble_us": assemble,
        "compute_us": compute,
    }
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            spent[name].append(_cpu_s(step) / len(pairs) * 1e6)
    microseconds = {name: float(np.median(values)) for name, values in spent.items()}
    text = {kind: microseconds[f"{kind}_us"] + microseconds["assemble_us"] for kind in ("cold", "warm")}
    return {
        "dataset": dataset,
        "model": model.name,
        "variant": model.variant,
        "pairs": len(pairs),
        "tokens": float(encoded.lengths.mean()),
        **microseconds,
        **{f"{kind}_share": value / microseconds["compute_us"] for kind, value in text.items()},
    }


def _batches(model: Model, encoded: EncodedRows) -> list[tuple[list[tuple[EncodedRows, int]], int]]:
    """Rows of one padded length together, as many as the cost table finds best."""
    levels = model.ladder.levels(encoded.lengths)
    batches = []
    for level in np.unique(levels).tolist():
        rows = np.flatnonzero(levels == level).tolist()
        most = model.costs.best_rows(level)
        for begin in range(0, len(rows), most):
            batches.append(([(encoded, row) for row in rows[begin : begin + most]], model.ladder.lengths[level]))
    return batches


def _cpu_s(step: Callable[[], None]) -> float:
    begin = time.thread_time()
    step()
    return time.thread_time() - begin


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.partition("\n")[0])
    parser.add_argument("package", nargs="+", type=Path, help="packages of cross-encoders")
    parser.add_argument("--variant", default="", help="variant to load (default: each package's best)")
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        help="also a model of this shape, random weights, the first package's tokenizer",
    )
    parser.add_argument("--dataset", nargs="+", default=["builtin"], help="builtin, stsb, qnli, xquad, scifact")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--limit", type=int, default=256, help="sample at most N pairs of a set (default 256)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
