"""Servers as the model of a bulk run: requests of some rows, several in flight."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pairwire.client import Client, InvalidInput, WrongModelKind

from .answering import RUN, bad_item, objects, shape_of_manifest
from .answers import Answers
from .identity import package_identity
from .job import KINDS, Job, Task
from .texts import Item

IN_FLIGHT = 8
"""Requests at once: enough for several servers; the client sends as many parts as are answered within a second."""


@dataclass(slots=True)
class Begun:
    """Items in requests; then on their way."""

    items: Sequence[Item]
    answers: Answers
    parts: list[list[int]]
    """Indices of the items of each request, the longest texts first."""
    calls: list[Future[None]] = field(default_factory=list)


class RemoteModel:
    """A `Computer` on servers."""

    def __init__(self, client: Client, job: Job) -> None:
        """Asks what the model is; closes the client in the end.

        Raises:
            pairwire.client.ClientError: nobody answers, or the model cannot do the job.
        """
        self._client = client
        self._job = job
        details = client.model(job.options.model)
        if details.model.kind != KINDS[job.task].value:
            raise WrongModelKind(f"{details.model.name!r} is a {details.model.kind}; {job.task} needs another kind")
        self._name = details.model.name
        self.shape = shape_of_manifest(details.manifest, self._name, job)
        self.identity = package_identity(details.manifest, details.model.variant)
        self.runtime = "servers"
        self._threads = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="pairwire-remote")

    def begin(self, items: Sequence[Item]) -> Begun:
        """Sorts items by length, in requests; sends nothing."""
        order = sorted(range(len(items)), key=lambda at: -_characters(items[at]))
        parts = [order[begin : begin + RUN] for begin in range(0, len(order), RUN)]
        return Begun(items, Answers.empty(self._job, self.shape, len(items)), parts)

    def submit(self, begun: Begun) -> None:
        """Sends the requests, as many at once as may be in flight."""
        begun.calls = [self._threads.submit(self._call, part, begun) for part in begun.parts]

    def finish(self, begun: Begun) -> Answers:
        """Waits for the answers.

        Raises:
            pairwire.client.ClientError: a request failed for good.
        """
        for call in begun.calls:
            call.result()
        return begun.answers

    def close(self) -> None:
        """Ends what is on its way."""
        self._client.close()  # first: it ends the calls that the threads wait for
        self._threads.shutdown(cancel_futures=True)

    def _call(self, part: list[int], begun: Begun) -> None:
        at = list(part)
        while at:
            try:
                values, usage = self._ask([begun.items[each] for each in at])
            except InvalidInput as error:
                found = bad_item(error)
                if found is None:
                    raise
                begun.answers.failed[at.pop(found[0])] = found[1]
            else:
                begun.answers.values[at] = values
                begun.answers.usages.append(usage.tokens)
                begun.answers.padding.append(usage.padded_tokens)
                return

    def _ask(self, items: list[Any]) -> tuple[Any, Any]:
        options = {**asdict(self._job.options), "model": self._name}
        if self._job.task in (Task.SCORE, Task.RERANK):
            scored = self._client.score(items, **options)
            return scored.scores.reshape(len(items), -1), scored.usage
        if self._job.task is Task.EMBED:
            embedded = self._client.embed(items, **options)
            return np.asarray(embedded.embeddings).astype(self.shape.dtype), embedded.usage
        sparse = self._client.embed_sparse(items, **options)
        return objects(sparse.rows()), sparse.usage


def _characters(item: Item) -> int:
    return len(item) if isinstance(item, str) else len(item[0]) + len(item[1])
