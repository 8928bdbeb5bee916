"""Clusters of like sentences: what a bi-encoder is for, and what a cross-encoder would have needed for it.

    python -m examples.cluster                  about 200 built-in sentences
    python -m examples.cluster --data DIR       10,000 sentences of STS-B, QNLI, XQuAD and SciFact

A bi-encoder reads each of n sentences once. A cross-encoder reads pairs, and there are n (n - 1) / 2 of them.
Prints the largest clusters with the sentences nearest to their centres, the time that was taken, and the time that the
cross-encoder would take at the rate at which it scores --pairs random pairs of these sentences.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans

from pairwire.client import Client

from . import _serving
from ._texts import sentences

SHOWN_CLUSTERS = 5
SHOWN_SENTENCES = 3


def main(argv: Sequence[str] | None = None) -> None:
    """Embeds, clusters, and measures the rate of pairs."""
    parser = _serving.arguments("cluster", __doc__)
    parser.add_argument("--sentences", type=int, default=10_000, help="at most N (default 10000)")
    parser.add_argument("--clusters", type=int, help="how many (default: the square root of the sentences)")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs that the rate is measured with (default 1000)")
    args = parser.parse_args(argv)
    texts = sentences(args.data, args.sentences)
    with _serving.connected(args) as client:
        embedded = client.embed(texts, priority="low", timeout_s=600)
        pairs_a_second = pair_rate(client, texts, args.pairs)
    began = time.perf_counter()
    members = cluster(embedded.embeddings, args.clusters or round(len(texts) ** 0.5))
    clustering_s = time.perf_counter() - began
    show(texts, members)
    pairs = len(texts) * (len(texts) - 1) // 2
    print(f"{len(texts):,} sentences: {embedded.timing.elapsed_s:.1f} s to embed + {clustering_s:.1f} s to cluster")
    print(f"{pairs:,} pairs at {pairs_a_second:.0f} pairs/s of the cross-encoder: {duration(pairs / pairs_a_second)}")


def cluster(vectors: npt.NDArray[np.number], count: int) -> list[list[int]]:
    """Positions of the members of each cluster, nearest to the centre first; largest cluster first.

    ``vectors`` are [sentences, dimensions]. On vectors of unit length, k-means groups by cosine.
    """
    means = MiniBatchKMeans(n_clusters=count, n_init=3, random_state=0).fit(vectors)
    distances = np.linalg.norm(vectors - means.cluster_centers_[means.labels_], axis=1)
    nearest = np.argsort(distances, kind="stable")
    members = [nearest[means.labels_[nearest] == label].tolist() for label in range(count)]
    return sorted(members, key=len, reverse=True)


def pair_rate(client: Client, texts: Sequence[str], count: int) -> float:
    """Pairs a second that the cross-encoder scores, measured with random pairs of the texts."""
    chance = random.Random(0)
    pairs = [tuple(chance.sample(texts, 2)) for _ in range(count)]
    return count / client.score(pairs, timeout_s=600).timing.elapsed_s


def show(texts: Sequence[str], members: Sequence[Sequence[int]]) -> None:
    """The largest clusters."""
    print(f"{len(members)} clusters of {len(members[-1])} to {len(members[0])} sentences; the largest:")
    for positions in members[:SHOWN_CLUSTERS]:
        print(f"\n{len(positions)} sentences")
        for position in positions[:SHOWN_SENTENCES]:
            print(f"  {texts[position][:100]}")
    print()


def duration(seconds: float) -> str:
    """In the unit that suits: ``4.2 s``, ``1.5 minutes``, ``15.1 hours``, ``3.3 days``."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
