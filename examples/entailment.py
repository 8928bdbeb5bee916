"""Does the first text imply the second? A cross-encoder of several labels says which relation two texts have.

    python -m examples.entailment --cross-encoder DIR     an NLI model: premise and hypothesis, a probability a label
    python -m examples.entailment                         without one: does the sentence answer the question?
    python -m examples.entailment --data DIR              the latter on rows of QNLI that the demo model has not seen

Export an NLI model such as cross-encoder/nli-deberta-v3-small with `pairwire export`; the labels are those of its
checkpoint. Prints the label of each pair: the most probable one, or, of a model with one label, whether its score
reaches --min-score. With --data also how many are right, and how many "yes" or "no" to everything would have right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairwire.client import Client
from pairwire.export.demo.data import ScoredPair, read_qnli
from pairwire.export.demo.splits import split_qnli

from . import _serving

NLI = (
    ("A man plays the guitar on a stage.", "Someone makes music."),
    ("A man plays the guitar on a stage.", "The man is asleep."),
    ("A man plays the guitar on a stage.", "The man is famous."),
    ("All the shops in the town close at six.", "At seven you cannot buy bread in the town's shops."),
    ("Nobody in the room has read the report.", "Some of the people in the room have read the report."),
)
QUESTIONS = (
    ("How many people live in Iceland?", "Iceland has about 390,000 inhabitants."),
    ("How many people live in Iceland?", "Iceland lies on the ridge where two continental plates drift apart."),
    ("What causes ocean tides?", "Tides are caused mainly by the gravitational pull of the moon."),
    ("What causes ocean tides?", "Seawater is salty because rivers carry dissolved minerals into the ocean."),
    ("Who painted the ceiling of the Sistine Chapel?", "Michelangelo painted the ceiling between 1508 and 1512."),
    ("Who painted the ceiling of the Sistine Chapel?", "The Sistine Chapel is where cardinals elect a new pope."),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Labels the pairs that suit the model."""
    parser = _serving.arguments("entailment", __doc__, bi_encoder=False)
    parser.add_argument("--min-score", type=float, default=0.5, help="of a yes, with one label (default 0.5)")
    args = parser.parse_args(argv)
    with _serving.connected(args) as client:
        labels = client.score(QUESTIONS[:1]).labels
        if args.data is not None and len(labels) > 1:
            raise SystemExit(f"--data: QNLI is a question of yes or no; this model has {', '.join(labels)}")
        if args.data is not None:
            _, held_out = split_qnli(read_qnli(args.data / "qnli" / "dev.tsv"))
            measure(client, held_out, args.min_score)
        elif len(labels) > 1:
            show_relations(client, NLI)
        else:
            show_answers(client, QUESTIONS, args.min_score)


def show_relations(client: Client, pairs: Sequence[tuple[str, str]]) -> None:
    """Each pair with the probabilities of the labels, which add up to 1, and the most probable label."""
    found = client.score(pairs, activation="softmax")
    print("  ".join(found.labels))
    for (premise, hypothesis), probabilities in zip(pairs, found.scores, strict=True):
        chosen = found.labels[int(np.argmax(probabilities))]
        numbers = "  ".join(f"{p:{len(label)}.3f}" for label, p in zip(found.labels, probabilities, strict=True))
        print(f"{numbers}  {chosen}: {premise}  =>  {hypothesis}")


def show_answers(client: Client, pairs: Sequence[tuple[str, str]], min_score: float) -> None:
    """Each pair with its score, and yes or no."""
    for (question, sentence), score in zip(pairs, client.score(pairs).scores, strict=True):
        print(f"{score:.3f}  {'yes' if score >= min_score else 'no ':3}  {question}  |  {sentence}")


def measure(client: Client, rows: Sequence[ScoredPair], min_score: float) -> None:
    """Accuracy over rows whose target is 1 where the sentence answers the question."""
    found = client.score([(row.first, row.second) for row in rows], timeout_s=600)
    truth = np.array([row.target for row in rows]) == 1.0
    right = (found.scores >= min_score) == truth
    always = max(truth.mean(), 1.0 - truth.mean())
    seconds = found.timing.elapsed_s
    print(f"{len(rows):,} pairs of QNLI in {seconds:.1f} s, {len(rows) / seconds:.0f} a second")
    print(f"accuracy {right.mean():.3f}; the same answer to everything: {always:.3f}")


if __name__ == "__main__":
    main()
