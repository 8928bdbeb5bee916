"""What a first stage spares and what it costs: a bi-encoder keeps n of many candidates, a cross-encoder reads those.

``python -m benchmarks.first_stage --package CE_DIR --first-stage BI_DIR --data DIR``

Claims of SciFact's test part (a seeded sample), each with BM25's best abstracts of the whole corpus (bm25s). Every
candidate is scored once; a pair's score does not depend on what is scored with it, so that the ranking for every n
follows exactly from those scores and the first stage's similarities. Time is measured, all systems in turns on the
first few claims: reranking all, keeping n with all vectors of documents known (warm), and with none known (cold).
Token ids are never kept, so that everybody tokenises what it reads.

    ndcg_at_10   of what is kept, in the cross-encoder's order; loss is against reranking all
    top10_kept   share of the ten best of reranking all that the first stage let through
    ratio        median over the timed claims of the time over that of reranking all
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import Qrel, ScoredDoc, nDCG

from pairwire.server.engine import Engine, EngineConfig, FirstStage, ScoreOptions
from pairwire.server.engine.first_stage import nearest

from .datasets import scifact_texts
from .report import print_machine, print_table, write_json

COLUMNS = (
    "system",
    "keep",
    "ndcg_at_10",
    "loss",
    "top10_kept",
    "warm_s",
    "warm_ratio",
    "cold_s",
    "cold_ratio",
)
TOP = 10
SEED = 0

Float32Array = npt.NDArray[np.float32]
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A query and its candidates, BM25's best first."""

    id: str
    text: str
    ids: tuple[str, ...]
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """What both stages say of a claim's candidates, each [candidates]."""

    scores: Float32Array
    similarities: Float32Array

    def ranking(self, keep: int) -> list[int]:
        """Candidates by descending score, of those that the first stage keeps."""
        kept = nearest(self.similarities, keep)
        best: list[int] = kept[np.argsort(-self.scores[kept], kind="stable")].tolist()
        return best


def main() -> None:
    """Prints the curve over n."""
    args = _arguments()
    print_machine()
    claims = load_claims(args.data, args.candidates, args.queries)
    print(f"{len(claims)} claims with {len(claims[0].ids)} abstracts each, pairs cut at {args.max_length} tokens")
    rows = asyncio.run(_measure(args, claims))
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def load_claims(data: Path, candidates: int, limit: int) -> list[Claim]:
    """A seeded sample of the judged claims, in their order, with BM25's best."""
    import bm25s

    queries, corpus = scifact_texts(data)
    judged = list(dict.fromkeys(qrel.query_id for qrel in _judged(data)))
    chosen = sorted(random.Random(SEED).sample(judged, min(limit, len(judged))), key=judged.index)
    ids, texts = list(corpus), list(corpus.values())
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    asked = bm25s.tokenize([queries[each] for each in chosen], stopwords="en", show_progress=False)
    found, _ = index.retrieve(asked, k=min(candidates, len(ids)), show_progress=False)
    return [
        Claim(each, queries[each], tuple(ids[at] for at in places), tuple(texts[at] for at in places))
        for each, places in zip(chosen, found.tolist(), strict=True)
    ]


def _judged(data: Path) -> list[Qrel]:
    with (data / "scifact" / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Qrel(row["query-id"], row["corpus-id"], int(row["score"])) for row in csv.DictReader(file, delimiter="\t")
        ]


async def _measure(args: argparse.Namespace, claims: Sequence[Claim]) -> list[dict[str, object]]:
    packages = (args.package, args.first_stage)
    options = ScoreOptions(max_length=args.max_length)
    async with (
        await Engine.open(*packages, config=EngineConfig(token_cache_bytes=0)) as warm,
        await Engine.open(*packages, config=EngineConfig(token_cache_bytes=0, vector_cache_bytes=0)) as cold,
    ):
        seconds = await time_all(warm, cold, claims[: args.timed], args.keep, args.cold_keep, options)
        scored = await score_all(warm, claims, options, args.scores)
    return curve(claims, scored, args.keep, _judged(args.data), seconds)


async def score_all(
    engine: Engine, claims: Sequence[Claim], options: ScoreOptions, path: Path | None
) -> dict[str, Scored]:
    """Both scores of every candidate, by claim. What the file has is not computed again, what is new is added."""
    known = {} if path is None else _load(path)
    scored = {}
    for claim in claims:
        if claim.id not in known:
            found = await engine.retrieve_and_rerank(
                claim.text, claim.documents, first_stage=FirstStage(keep=len(claim.ids)), options=options
            )
            known[claim.id] = Scored(found.scores, found.first_stage_scores)
            if path is not None:
                _save(path, known)
        scored[claim.id] = known[claim.id]
    return scored


def _load(path: Path) -> dict[str, Scored]:
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return {name: Scored(*file[name]) for name in file.files}


def _save(path: Path, known: Mapping[str, Scored]) -> None:
    arrays = {name: np.stack([each.scores, each.similarities]) for name, each in known.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]  # no claim is called allow_pickle


async def time_all(
    warm: Engine, cold: Engine, claims: Sequence[Claim], keep: Sequence[int], cold_keep: int, options: ScoreOptions
) -> dict[str, list[float]]:
    """Seconds of each system for each claim, in turns that begin with another system each time."""
    seconds: dict[str, list[float]] = {}
    for turn, claim in enumerate(claims):
        # Not timed: this makes the vectors known.
        await warm.retrieve_and_rerank(claim.text, claim.documents, first_stage=FirstStage(keep=1), options=options)
        systems = list(_systems(warm, cold, claim, keep, cold_keep, options).items())
        for name, call in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
            began = time.monotonic()
            await call()
            seconds.setdefault(name, []).append(time.monotonic() - began)
    return seconds


def _systems(
    warm: Engine, cold: Engine, claim: Claim, keep: Sequence[int], cold_keep: int, options: ScoreOptions
) -> Mapping[str, Call]:
    def staged(engine: Engine, count: int) -> Call:
        stage = FirstStage(keep=count)
        return lambda: engine.retrieve_and_rerank(claim.text, claim.documents, first_stage=stage, options=options)

    calls: dict[str, Call] = {"all": lambda: warm.score_documents(claim.text, claim.documents, options=options)}
    calls |= {f"warm {count}": staged(warm, count) for count in keep}
    return calls | {f"cold {cold_keep}": staged(cold, cold_keep)}


def curve(
    claims: Sequence[Claim],
    scored: Mapping[str, Scored],
    keep: Sequence[int],
    judged: Sequence[Qrel],
    seconds: Mapping[str, Sequence[float]],
) -> list[dict[str, object]]:
    """A row for each n, between the two stages alone and reranking all. ``seconds`` are those of ``time_all``."""
    candidates = len(claims[0].ids)

    def ndcg(rank: Callable[[Claim], Sequence[int]]) -> float:
        return _ndcg({claim: rank(claim) for claim in claims}, judged)

    whole = ndcg(lambda claim: scored[claim.id].ranking(candidates))
    rows: list[dict[str, object]] = [
        {"system": "BM25 alone", "ndcg_at_10": ndcg(lambda claim: range(candidates))},
        {
            "system": "first stage alone",
            "ndcg_at_10": ndcg(lambda claim: np.argsort(-scored[claim.id].similarities, kind="stable").tolist()),
        },
    ]
    for count in keep:
        found = ndcg(lambda claim, count=count: scored[claim.id].ranking(count))  # type: ignore[misc]  # mypy cannot infer a default
        row = {"system": "both", "keep": count, "ndcg_at_10": found, "loss": whole - found}
        rows.append({**row, "top10_kept": _top_kept(scored, count), **_times(seconds, count)})
    took = {"warm_s": statistics.mean(seconds["all"]), "warm_ratio": 1.0} if seconds else {}
    return [*rows, {"system": "rerank all", "keep": candidates, "ndcg_at_10": whole, "loss": 0.0, **took}]


def _ndcg(rankings: Mapping[Claim, Sequence[int]], judged: Sequence[Qrel]) -> float:
    run = [
        ScoredDoc(claim.id, claim.ids[at], -float(place))
        for claim, ranking in rankings.items()
        for place, at in enumerate(ranking)
    ]
    asked = {claim.id for claim in rankings}
    measure = nDCG @ TOP
    found: float = ir_measures.calc_aggregate([measure], [qrel for qrel in judged if qrel.query_id in asked], run)[
        measure
    ]
    return found


def _top_kept(scored: Mapping[str, Scored], keep: int) -> float:
    shares = []
    for each in scored.values():
        best = set(each.ranking(len(each.scores))[:TOP])
        shares.append(len(best & set(each.ranking(keep))) / len(best))
    return statistics.mean(shares)


def _times(seconds: Mapping[str, Sequence[float]], keep: int) -> dict[str, float]:
    found = {}
    for state in ("warm", "cold"):
        times = seconds.get(f"{state} {keep}")
        if times:
            found[f"{state}_s"] = statistics.mean(times)
            ratios = [one / whole for one, whole in zip(times, seconds["all"], strict=True)]
            found[f"{state}_ratio"] = statistics.median(ratios)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_stage", description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="a package of a one-label cross-encoder")
    parser.add_argument("--first-stage", type=Path, required=True, help="a package of a bi-encoder")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--candidates", type=int, default=1000, help="abstracts a claim (default 1000)")
    parser.add_argument("--keep", type=int, nargs="+", default=[10, 20, 50, 100, 200], help="values of n")
    parser.add_argument("--cold-keep", type=int, default=100, help="the n that is timed with no vector known, too")
    parser.add_argument("--queries", type=int, default=24, help="claims (default 24, all are 300)")
    parser.add_argument("--timed", type=int, default=3, help="claims that time is measured on (default 3)")
    parser.add_argument("--max-length", type=int, default=256, help="tokens that a pair is cut to (default 256)")
    parser.add_argument(
        "--scores", type=Path, metavar="FILE.npz", help="keep scores here between runs of the same packages and options"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
