"""What kinds of models and of texts there are. Imports nothing: the command line names them in its help."""

from __future__ import annotations

from enum import Enum


class ModelKind(Enum):
    """What a model does with text."""

    CROSS_ENCODER = "cross-encoder"
    BI_ENCODER = "bi-encoder"
    SPARSE_ENCODER = "sparse-encoder"


class InputType(Enum):
    """What a text is, for a model that reads queries in another way than documents."""

    QUERY = "query"
    DOCUMENT = "document"
