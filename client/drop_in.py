"""What the look-alikes of sentence-transformers share: which prompt is meant; refusals of what only torch can do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from .errors import InvalidInput

if TYPE_CHECKING:
    from .results import ModelKind
    from .sync import Client

P = ParamSpec("P")
T = TypeVar("T")

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""In the order in which sentence-transformers looks for them."""


class PromptNames:
    """The prompts of a served model, asked for once, when they are needed."""

    def __init__(self, client: Client, model: str, kind: ModelKind) -> None:
        """``model`` may be empty where exactly one of that kind is loaded, as for the calls themselves."""
        self._client = client
        self._model = model
        self._kind = kind
        self._known: frozenset[str] | None = None

    def choose(self, names: Sequence[str], prompt_name: str | None, prompt: str | None) -> str | None:
        """The prompt that the caller names, or else the first of ``names`` that there is; None for the default one."""
        if prompt_name is not None or prompt is not None:
            return prompt_name
        if self._known is None:
            self._known = frozenset(self._client.model(self._model or self._only()).manifest.prompts)
        return next((name for name in names if name in self._known), None)

    def _only(self) -> str:
        """The one model of the kind; the server says what is wrong where there is another number of them."""
        names = [model.name for model in self._client.models() if model.kind == self._kind]
        return names[0] if len(names) == 1 else ""


def renamed(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Takes arguments by their earlier names too, ``earlier="later"``, as sentence-transformers does.

    Where both are given, the earlier name means nothing.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(method)
        def call(*args: P.args, **named: P.kwargs) -> T:
            for earlier, later in names.items():
                if earlier in named:
                    named.setdefault(later, named.pop(earlier))
            return method(*args, **named)

        return call

    return decorate


def refuse_tensors(convert_to_numpy: bool, convert_to_tensor: bool, method: str) -> None:
    """Refuses to return torch tensors.

    Raises:
        InvalidInput: tensors are asked for.
    """
    if convert_to_tensor or not convert_to_numpy:
        field = "convert_to_tensor" if convert_to_tensor else "convert_to_numpy"
        raise InvalidInput.at(field, f"this client does without torch; use torch.from_numpy on what {method} returns")


def check_batch_size(batch_size: int) -> None:
    """Refuses what sentence-transformers refuses, although the server decides.

    Raises:
        ValueError: less than 1.
    """
    if batch_size <= 0:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size}")
