"""Does memory stay flat? ``python -m benchmarks.soak --package models/scorer models/embedder --minutes 10``.

All packages run in one engine. Requests alternate between them at random: single rows and up to ``--rows`` of them, of
every length from one word to the most that the model reads. Prints the process's resident memory every ``--every``
seconds, and exits with 1 where it has grown by more than ``--limit`` percent since the end of the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from pairwire.server.engine import Engine, EngineConfig, ModelInfo, ModelKind

from .datasets import load_pairs
from .report import histogram, print_machine, print_table, write_json

COLUMNS = ("seconds", "rss_mib", "growth_percent", "requests", "rows", "tokens")
EXIT_GREW = 1


@dataclass(slots=True)
class Work:
    """What has been done so far."""

    requests: int = 0
    rows: int = 0
    tokens: int = 0
    lengths: list[int] = field(default_factory=list)
    """Tokens of each row that came alone, of any length."""


class Draws:
    """What one client asks for next: texts of any number of words, cut from real ones that are laid end to end."""

    def __init__(self, words: Sequence[str], most_rows: int, seed: int) -> None:
        self._words = words
        self._most_rows = most_rows
        self._random = random.Random(seed)

    def model(self, models: Sequence[ModelInfo]) -> ModelInfo:
        """Any."""
        return self._random.choice(models)

    def rows(self) -> int:
        """1 in half of the cases, else up to the most."""
        return 1 if self._random.random() < 0.5 else self._random.randint(1, self._most_rows)

    def text(self, most_words: int, *, longest: bool = False) -> str:
        """Of 1 to ``most_words`` words, half of the texts shorter than the square root of that; or of the most."""
        count = most_words if longest else round(most_words ** self._random.random())
        start = self._random.randrange(max(1, len(self._words) - count))
        return " ".join(self._words[start : start + count])


def main() -> None:
    """Runs the load, prints the curve, and exits with 1 where memory has grown too much."""
    args = _arguments()
    print_machine()
    samples, work = asyncio.run(_soak(args))
    print(f"rows that came alone: {histogram(np.array(work.lengths))}")
    print_table(samples[-1:], COLUMNS)
    write_json(args.json, samples)
    if work.requests < args.warmup_requests:
        sys.exit(f"too slow to tell: {work.requests} requests, and the warm-up alone takes {args.warmup_requests}")
    growth = growth_percent(samples)
    print(f"resident memory grew by {growth:.2f} % after the warm-up; the limit is {args.limit:g} %")
    if growth > args.limit:
        sys.exit(EXIT_GREW)


def growth_percent(samples: Sequence[Mapping[str, float]]) -> float:
    """The highest sample after the warm-up, relative to the last one of the warm-up."""
    return max(sample["growth_percent"] for sample in samples)


async def _soak(args: argparse.Namespace) -> tuple[list[dict[str, float]], Work]:
    words = " ".join(text for pair in load_pairs(args.dataset, args.data, 2000) for text in pair).split()
    work = Work()
    # No run depends on an earlier one, and what is watched is not how the cache of token ids fills up to its bound.
    config = EngineConfig(variant=args.variant, cache_dir="none", token_cache_bytes=0)
    async with await Engine.open(*args.package, config=config) as engine:
        end = time.monotonic() + 60 * args.minutes
        clients = [
            asyncio.create_task(
                _client(engine, Draws(words, args.rows, seed), work, time.monotonic() + args.warmup, end)
            )
            for seed in range(args.seed, args.seed + args.concurrency)
        ]
        samples = await _sample(work, args.every, args.warmup, args.warmup_requests, end)
        await asyncio.gather(*clients)
    return samples, work


async def _client(engine: Engine, draws: Draws, work: Work, warm: float, end: float) -> None:
    """One request after the other until the time is up.

    Until ``warm``, half of the requests have nothing but the longest texts: memory is to reach its height by design,
    not whenever all workers happen to run their largest batches at once.
    """
    models = list(engine.models.values())
    while (now := time.monotonic()) < end:
        model, rows = draws.model(models), draws.rows()
        longest = now < warm and work.requests % 2 == 0
        texts = [draws.text(model.max_length, longest=longest) for _ in range(rows)]
        if model.kind is ModelKind.CROSS_ENCODER:
            pairs = [(draws.text(16), text) for text in texts]
            usage = (await engine.score(pairs, model=model.name)).usage
        elif model.kind is ModelKind.SPARSE_ENCODER:
            usage = (await engine.embed_sparse(texts, model=model.name)).usage
        else:
            usage = (await engine.embed(texts, model=model.name)).usage
        work.requests += 1
        work.rows += rows
        work.tokens += usage.tokens
        if rows == 1 and not longest:
            work.lengths.append(usage.tokens)


async def _sample(
    work: Work, every_s: float, warmup_s: float, warmup_requests: int, end: float
) -> list[dict[str, float]]:
    process, started = psutil.Process(), time.monotonic()
    samples: list[dict[str, float]] = []
    level = 0.0
    while time.monotonic() < end:
        elapsed = time.monotonic() - started
        rss = process.memory_info().rss / 2**20
        if not level or elapsed <= warmup_s or work.requests < warmup_requests:
            level = rss
        growth = 100 * (rss / level - 1)
        print(f"{elapsed:7.1f} s  {rss:8.1f} MiB  {growth:+6.2f} %  {work.requests} requests", flush=True)
        samples.append(
            {
                "seconds": elapsed,
                "rss_mib": rss,
                "growth_percent": growth,
                "requests": work.requests,
                "rows": work.rows,
                "tokens": work.tokens,
            }
        )
        await asyncio.sleep(every_s)
    return samples


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", nargs="+", type=Path, required=True, metavar="DIR", help="model packages")
    parser.add_argument("--variant", default="", help="variant to load from each; default: its best one for the CPU")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load, warm-up included; default 10")
    parser.add_argument("--warmup", type=float, default=120.0, metavar="SECONDS", help="at least, of it; default 120")
    parser.add_argument("--warmup-requests", type=int, default=2000, help="at least, in the warm-up; default 2000")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between samples; default 5")
    parser.add_argument("--limit", type=float, default=3.0, metavar="PERCENT", help="of growth; default 3")
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight; default 8")
    parser.add_argument("--rows", type=int, default=32, help="most rows of a request; default 32")
    parser.add_argument("--dataset", default="builtin", help="whose texts are cut; default builtin")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the samples")
    args = parser.parse_args()
    if not 0 <= args.warmup < 60 * args.minutes:
        parser.error("--warmup: must be shorter than --minutes")
    return args


if __name__ == "__main__":
    main()
