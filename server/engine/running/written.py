"""The one place that writes result rows: what the graph gave, into the arrays of the tickets that wait for it."""

from __future__ import annotations

import numpy as np

from ...runtime.base import Float32Array, Int32Array
from ..outputs.heads import Head
from .ticket import Ticket


class Written:
    """Values of rows, [rows, outputs] float32, and their scores by each head that a ticket asked for."""

    def __init__(self, values: Float32Array) -> None:
        self.values = values
        self._scores: dict[Head, Float32Array] = {}

    def into(self, ticket: Ticket, at: Int32Array | int, rows: slice | int) -> None:
        """Writes ``rows`` of the values into rows ``at`` of the ticket's output. Needs no lock: nobody reads it yet."""
        # Most batches are read by one head. It is computed once, not once for each of the batch's tickets.
        scores = self._scores.get(ticket.head)
        if scores is None:
            scores = self._scores[ticket.head] = ticket.head.scores(self.values)
        ticket.output[at] = scores[rows]

    def finite(self) -> list[bool]:
        """[rows] whether all numbers of a row are finite."""
        finite: list[bool] = np.all(np.isfinite(self.values), axis=1).tolist()
        return finite
