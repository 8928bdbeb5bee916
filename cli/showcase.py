"""What the demo prints: rankings with their times, and a summary. Nothing here knows a server."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from pairwire.client.results import RerankResult
from pairwire.v1.manifest_pb2 import ModelManifest

from .output import one_line

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Ranked:
    """A query with its ranking, of the median call where it was asked several times."""

    query: str
    result: RerankResult


def parity_line(manifest: ModelManifest) -> str:
    """How far the package is from the original checkpoint, in a sentence a variant."""
    lines = []
    for variant in manifest.variants:
        if not variant.HasField("parity"):
            lines.append(f"{variant.name}: not compared with the original (--no-parity)")
            continue
        parity = variant.parity
        lines.append(
            f"{variant.name} against sentence-transformers on the original, {parity.samples} inputs: "
            f"{'passed' if parity.passed else 'FAILED'}\n"
            f"  scores differ by {parity.mean_abs_diff:.4f} on average and {parity.max_abs_diff:.4f} at most, "
            f"Spearman {parity.spearman:.4f} (limit {parity.spearman_limit:g}), "
            f"by {parity.batch_variance:.1g} from batch to batch"
        )
    return "\n".join(lines)


def ranking_table(ranked: Ranked) -> str:
    """One query with its documents, best first, and a line of times."""
    lines = [f"? {one_line(ranked.query)}"]
    for rank, found in enumerate(ranked.result, start=1):
        text = textwrap.shorten(one_line(found.document), WIDTH - 14, placeholder=" ...")
        lines.append(f"  {rank:2}  {found.score:.3f}  {text}")
    timing = ranked.result.timing
    lines.append(
        f"      {_ms(timing.elapsed_s)} ms, of which the server: queue {_ms(timing.queue_s)}, "
        f"tokenise {_ms(timing.tokenize_s)}, compute {_ms(timing.compute_s)}"
    )
    return "\n".join(lines)


def summary(rankings: Sequence[Ranked], pairs: int, seconds: float) -> str:
    """What it came to: time a query one after the other, and pairs a second where many are sent at once."""
    median = statistics.median(ranked.result.timing.elapsed_s for ranked in rankings)
    documents = sum(len(ranked.result) for ranked in rankings)
    return (
        f"{len(rankings)} queries with {documents} documents, one after the other: {_ms(median)} ms a query (median)\n"
        f"every query with every document: {pairs} pairs in {seconds:.2f} s, {pairs / seconds:.0f} pairs/s"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"
