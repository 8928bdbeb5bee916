"""Which ids of tokens a model has embeddings for.

A tokenizer may know more: somebody added tokens, and nobody resized the embeddings. Such an id must never reach a
graph: it would fail the whole batch, or read other memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import numpy as np
from tokenizers import Tokenizer

from ...errors import InvalidInput
from .rules import TextRules
from .token_ids import ID_BYTES, Text, TokenIds


class NoEmbedding(InvalidInput):
    """A text has a token that the model has no embedding for."""


class Vocabulary:
    """The tokens of a tokenizer and the embeddings of a model: ids below ``rows`` have one."""

    def __init__(self, tokenizer: Tokenizer, rows: int = 0) -> None:
        """``rows`` may be 0 where nobody knows; ids are then bounded by the tokenizer's own."""
        self._tokenizer = tokenizer
        self.rows = rows or 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def tokens_beyond(self) -> dict[int, str]:
        """The tokens without an embedding, by id, ascending."""
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        return dict(sorted((id, token) for token, id in known.items() if id >= self.rows))

    def beyond(self, ids: bytes) -> list[int]:
        """Those of the ids (an int32 each) that have no embedding, in order."""
        return [each for each in memoryview(ids).cast("i") if each >= self.rows]

    def check_special(self, rules: TextRules, around: Sequence[bytes]) -> None:
        """``around`` is what the tokenizer puts around texts; the rest of what is put into every row is in ``rules``.

        Raises:
            ValueError: a token has no embedding, so that nothing could be served.
        """
        everywhere = [("what the tokenizer puts around a text", b"".join(around))]
        everywhere.append(("padding", _packed([rules.pad_token_id])))
        if rules.template is not None:
            literal = self._tokenizer.encode(rules.template.render("", ""), add_special_tokens=False).ids
            everywhere.append(("the template for pairs", _packed([*literal, *rules.template.suffix_ids])))
        for where, ids in everywhere:
            if found := self.beyond(ids):
                raise ValueError(
                    f"{where} has {self.name(found[0])}, but the model has embeddings only for ids below {self.rows}"
                )

    def check_rows(self, rows: Sequence[bytes]) -> tuple[int, int] | None:
        """Index of the first row with an id that has no embedding, and that id; None where all have one."""
        ids = np.frombuffer(b"".join(rows), np.int32)
        if not len(ids) or int(ids.max()) < self.rows:
            return None
        at = int(np.argmax(ids >= self.rows))
        ends = np.cumsum([len(row) // ID_BYTES for row in rows])
        return int(np.searchsorted(ends, at, side="right")), int(ids[at])

    def refuse(self, id: int, candidates: Iterable[tuple[str, Text]]) -> NoReturn:
        """Names the text that has the token; ``candidates`` are fields with their texts, at least one.

        Raises:
            NoEmbedding: always.
        """
        named = list(candidates)
        field = next((field for field, text in named if self._has(text, id)), named[0][0])
        raise NoEmbedding(
            field,
            f"it has {self.name(id)}, and this model has embeddings only for ids below {self.rows}; leave that token "
            "out, or export a checkpoint whose embeddings were resized to its tokenizer",
        )

    def name(self, id: int) -> str:
        """A token for people."""
        return f"the token {self._tokenizer.id_to_token(id)!r} (id {id})"

    def _has(self, text: Text, id: int) -> bool:
        if isinstance(text, TokenIds):
            return id in text.ids
        return id in self._tokenizer.encode(text, add_special_tokens=False).ids


def embedding_rows(run: Callable[[int], object], most: int) -> int:
    """Rows of a graph's embeddings, at most ``most``, for a package that does not say: the graph is asked.

    ``run`` computes a text of nothing but one id, and raises for an id that has no embedding.
    """
    runs, fails = 0, most
    probe = most - 1
    while runs < fails:
        try:
            run(probe)
        except Exception:  # onnxruntime has exceptions of its own, which its type stubs do not name
            fails = probe
        else:
            runs = probe + 1
        probe = (runs + fails) // 2
    return runs


def _packed(ids: Sequence[int]) -> bytes:
    return np.array(ids, np.int32).tobytes()
