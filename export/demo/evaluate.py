"""Measures an adapter: `python -m pairwire.export.demo.evaluate --data DIR --adapter DIR --tasks sts qnli scifact`.

Prints one JSON object. "base" is the bi-encoder without the adapter, "bm25" the candidates' own order.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from . import data, splits
from .base import open_model, score
from .teacher import Embedder, Floats

log = logging.getLogger(__name__)
Run = dict[str, dict[str, float]]
Figures = dict[str, float]
ScorePairs = Callable[[Sequence[tuple[str, str]]], Floats]  # one logit per pair
Embed = Callable[[Sequence[str]], Floats]  # unit vectors, [texts, width]
PAIRS_AT_A_TIME = 600


def ndcg(qrels: Mapping[str, Mapping[str, int]], run: Run) -> float:
    """Return nDCG@10 over the queries of `qrels`; a query that the run lacks counts as 0."""
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10])


def _cosines(embed: Embed, pairs: Sequence[tuple[str, str]]) -> Floats:
    texts = sorted({text for pair in pairs for text in pair})
    index = {text: i for i, text in enumerate(texts)}
    vectors = embed(texts)
    left, right = ([index[pair[side]] for pair in pairs] for side in (0, 1))
    return np.asarray((vectors[left] * vectors[right]).sum(axis=1), dtype=np.float32)


def evaluate_sts(root: Path, score_pairs: ScorePairs, embed: Embed) -> Figures:
    """Return Spearman's rank correlation on the STS-B test set for the adapter and for the base's cosine."""
    rows = data.read_sts(root / "stsb-en" / "stsb-en-test.csv")
    pairs, target = [(r.first, r.second) for r in rows], [r.target for r in rows]
    scores = {"adapter": score_pairs(pairs), "base": _cosines(embed, pairs)}
    return {"pairs": len(rows)} | {name: float(spearmanr(s, target).statistic) for name, s in scores.items()}


def _best_threshold(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> float:
    candidates = np.quantile(scores, np.linspace(0.01, 0.99, 99))
    return float(max(candidates, key=lambda t: float(((scores > t) == labels).mean())))


def evaluate_qnli(root: Path, score_pairs: ScorePairs, embed: Embed) -> Figures:
    """Return accuracy on the held-out QNLI rows: logit > 0, and the base's cosine at its best training threshold."""
    train, held = splits.split_qnli(data.read_qnli(root / "qnli" / "dev.tsv"))
    pairs, labels = [(r.first, r.second) for r in held], np.array([r.target > 0.5 for r in held])
    threshold = _best_threshold(
        _cosines(embed, [(r.first, r.second) for r in train]), np.array([r.target > 0.5 for r in train])
    )
    predictions = {"adapter": score_pairs(pairs) > 0, "base": _cosines(embed, pairs) > threshold}
    return {"pairs": len(held)} | {name: float((p == labels).mean()) for name, p in predictions.items()}


class Scorer:
    """Scores pairs with an adapter in worker processes of one thread each, which share a busy machine better."""

    def __init__(self, adapter: Path, max_length: int, workers: int) -> None:
        """`max_length` counts tokens of a row."""
        self.max_length = max_length
        context = multiprocessing.get_context("spawn")
        self._workers = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(adapter,))

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Return one logit per pair, `[pairs] float32`."""
        blocks = [list(pairs[i : i + PAIRS_AT_A_TIME]) for i in range(0, len(pairs), PAIRS_AT_A_TIME)]
        futures = [self._workers.submit(_score_block, block, self.max_length) for block in blocks]
        parts: list[Floats] = []
        for future in futures:
            parts.append(future.result())
            log.info("scored %d of %d pairs", min(len(parts) * PAIRS_AT_A_TIME, len(pairs)), len(pairs))
        return np.concatenate(parts)


_model: Any = None  # of this worker process


def _start_worker(adapter: Path) -> None:
    global _model
    torch.set_num_threads(1)
    _model = open_model(adapter)


def _score_block(pairs: list[tuple[str, str]], max_length: int) -> Floats:
    return score(_model, pairs, max_length)


def _base_run(embed: Embed, queries: Mapping[str, str], run: Run, corpus: Mapping[str, data.Article]) -> Run:
    articles = list(corpus)
    index = {key: i for i, key in enumerate(articles)}
    vectors, claims = embed([corpus[key].full for key in articles]), embed([queries[q] for q in run])
    return {
        query: {a: float(claims[row] @ vectors[index[a]]) for a in candidates}
        for row, (query, candidates) in enumerate(run.items())
    }


def rerank(score_pairs: ScorePairs, queries: Mapping[str, str], run: Run, corpus: Mapping[str, data.Article]) -> Run:
    """Return `run` with the adapter's logits in place of its scores."""
    keys = [(query, article) for query, articles in run.items() for article in articles]
    logits = score_pairs([(queries[q], corpus[a].full) for q, a in keys])
    out: Run = {}
    for (query, article), value in zip(keys, logits.tolist(), strict=True):
        out.setdefault(query, {})[article] = value
    return out


def _band(run: Run, low: int, high: int) -> Run:
    """Return the candidates of each query from rank `low` to `high` (exclusive), best first."""
    return {query: dict(sorted(scores.items(), key=lambda kv: -kv[1])[low:high]) for query, scores in run.items()}


def evaluate_scifact(root: Path, score_pairs: ScorePairs, embed: Embed, depths: Sequence[int]) -> Iterator[Figures]:
    """Yield, depth by depth, nDCG@10 on SciFact test: BM25's own order, and its best `depth` reranked.

    `depths` rise; what a smaller depth has scored is not scored again.
    """
    folder = root / "scifact"
    qrels = data.read_qrels(folder / "qrels" / "test.tsv")
    bm25 = {key: scores for key, scores in data.read_run(folder / "bm25.test.top100.trec").items() if key in qrels}
    texts, corpus = data.read_queries(folder / "queries.jsonl"), data.read_corpus(folder / "corpus.jsonl")
    base = _base_run(embed, texts, bm25, corpus)
    adapter: Run = {key: {} for key in bm25}
    for low, high in pairwise([0, *depths]):
        for key, scores in rerank(score_pairs, texts, _band(bm25, low, high), corpus).items():
            adapter[key] |= scores
        top = _band(bm25, 0, high)
        base_top = {q: {a: base[q][a] for a in articles} for q, articles in top.items()}
        yield {"queries": len(qrels), "depth": high, "bm25": ndcg(qrels, bm25), "base": ndcg(qrels, base_top)} | {
            "adapter": ndcg(qrels, adapter)
        }


def evaluate_dev(root: Path, score_pairs: ScorePairs, embed: Embed, depth: int) -> Figures:
    """Return nDCG@10 on the held-out training claims over the base bi-encoder's best `depth`; used to choose."""
    folder = root / "scifact"
    texts, corpus = data.read_queries(folder / "queries.jsonl"), data.read_corpus(folder / "corpus.jsonl")
    train = data.read_qrels(folder / "qrels" / "train.tsv")
    _, keys = splits.split_claims(texts, train, data.read_qrels(folder / "qrels" / "test.tsv"))
    base = _base_run(embed, texts, {key: dict.fromkeys(corpus, 0.0) for key in keys}, corpus)
    base = _band(base, 0, depth)
    qrels = {key: train[key] for key in keys}
    adapter = rerank(score_pairs, texts, base, corpus)
    return {"queries": len(keys), "depth": depth, "base": ndcg(qrels, base), "adapter": ndcg(qrels, adapter)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tasks that the command line names; log each figure when it is there, print all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with stsb-en, qnli, xquad and scifact")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="directory for the base's embeddings")
    tasks = ["sts", "qnli", "dev", "scifact"]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=["sts", "qnli", "scifact"])
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 50, 100], help="scifact: BM25's best N")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    score_pairs, embed = Scorer(args.adapter, args.max_length, args.workers), Embedder(args.cache)
    result: dict[str, list[Figures]] = {}
    for task in args.tasks:
        for figures in _figures(task, args, score_pairs, embed):
            log.info("%s %s", task, figures)
            result.setdefault(task, []).append(figures)
    json.dump({"max_length": args.max_length} | result, sys.stdout, indent=1)


def _figures(task: str, args: argparse.Namespace, score_pairs: ScorePairs, embed: Embed) -> Iterator[Figures]:
    if task == "sts":
        yield evaluate_sts(args.data, score_pairs, embed)
    elif task == "qnli":
        yield evaluate_qnli(args.data, score_pairs, embed)
    elif task == "dev":
        yield evaluate_dev(args.data, score_pairs, embed, depth=20)
    else:
        yield from evaluate_scifact(args.data, score_pairs, embed, args.depths)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main()
