"""Retrieve, then rerank: how a bi-encoder on the server chooses which documents the cross-encoder reads."""

from __future__ import annotations

from dataclasses import dataclass

from pairwire.v1 import scoring_pb2

from .errors import InvalidInput
from .inputs import check_count, utf8_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStage:
    """Let a bi-encoder keep the nearest documents. Vectors that the server knows from earlier calls cost nothing.

    Raises:
        InvalidInput: a ``keep`` that is no count, or a name that is not text.
    """

    model: str = ""
    """The bi-encoder; may be empty where the server has exactly one."""
    keep: int = 100
    """Documents that the cross-encoder reads; of equally near ones the first; more than there are means all."""
    query_prompt_name: str | None = None
    """The bi-encoder's prompt before the query; None means "query", or else the checkpoint's default."""
    document_prompt_name: str | None = None
    """Before each document; None means the first of "document", "passage" and "corpus" there is, or the default."""

    def __post_init__(self) -> None:
        utf8_bytes("first_stage.model", self.model)
        if self.keep is None:
            raise InvalidInput.at("first_stage.keep", "expected a whole number, got None")
        check_count("first_stage.keep", self.keep)
        for name in ("query_prompt_name", "document_prompt_name"):
            if getattr(self, name) is not None:
                utf8_bytes(f"first_stage.{name}", getattr(self, name))

    def message(self) -> scoring_pb2.FirstStage:
        """As it travels."""
        return scoring_pb2.FirstStage(
            model=self.model,
            keep=int(self.keep),
            query_prompt_name=self.query_prompt_name,
            document_prompt_name=self.document_prompt_name,
        )
