"""Requests that keep a server busy."""

from __future__ import annotations

from pairwire.v1 import scoring_pb2

_DIGITS = ("mix", "flour", "and", "water")


def work(documents: int, call: int = 0) -> scoring_pb2.RerankRequest:
    """Documents of some 80 words, none like another, nor like those of another call: equal ones would share a run.

    Numbers are spelled in words that toy tokenizers know: what they do not know is all the same to them.
    """
    texts = [f"{_spelled(call)} bread {_spelled(number)} {'mix flour and water ' * 20}" for number in range(documents)]
    return scoring_pb2.RerankRequest(query="how do I bake bread", documents=texts)


def _spelled(number: int) -> str:
    return " ".join(_DIGITS[number >> shift & 3] for shift in range(0, 12, 2))
