"""A served model behind the interface of sentence-transformers' CrossEncoder, so that switching is one line.

Arguments that only say *how* to compute (``batch_size``, ``device``, ``show_progress_bar``) are accepted and mean
nothing: the server decides. Arguments that would change what comes back, and that the wire does not carry, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from pairwire.client.drop_in import check_batch_size, refuse_tensors, renamed

from .errors import InvalidInput
from .given import is_pair, several
from .inputs import Activation, Given, Pair
from .results import Float32Array

if TYPE_CHECKING:
    from .sync import Client

_ACTIVATIONS: dict[str, Activation] = {"Identity": "identity", "Sigmoid": "sigmoid"}


class RankedDict(TypedDict):
    """An entry of what ``rank`` returns, as in sentence-transformers."""

    corpus_id: int
    score: np.float32
    text: NotRequired[str]


class CrossEncoder:
    """What sentence-transformers' CrossEncoder returns, computed by the server. Made by ``Client.cross_encoder``."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model

    @renamed(sentences="inputs", activation_fct="activation_fn")
    def predict(
        self,
        inputs: Iterable[Pair] | Pair,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
        *,
        num_workers: int = 0,
    ) -> Float32Array | np.float32:
        """Scores of pairs: float32 [pairs], or [pairs, labels] of a model with several labels.

        One pair instead of a list of pairs gives one score (or one row). ``activation_fn`` may be None (the
        checkpoint's own), ``torch.nn.Identity()`` or ``torch.nn.Sigmoid()``; ``apply_softmax`` comes after it, as in
        sentence-transformers. ``prompt`` is put before every first text, or, where pairs have a template, becomes the
        instruction, and wins over ``prompt_name``. ``batch_size``, ``show_progress_bar``, ``device``, ``pool``,
        ``chunk_size`` and ``num_workers`` mean nothing here.

        Raises:
            InvalidInput: not pairs of texts, or an argument that only torch can serve.
        """
        check_batch_size(batch_size)
        refuse_tensors(convert_to_numpy, convert_to_tensor, "predict")
        activation = activation_of(activation_fn)
        single = _is_single(inputs)
        pairs = [inputs] if single else list(several("inputs", inputs))
        if not pairs:
            return np.array([], dtype=np.float32)
        scores = self._client.score(
            pairs,  # type: ignore[arg-type]  # what is no pair is refused there, with its index
            model=self._model,
            activation=activation,
            prompt_name=prompt_name if prompt is None else None,
            prompt=prompt,
        ).scores
        if apply_softmax:
            scores = _softmax(scores)
        return scores[0] if single else scores

    @renamed(activation_fct="activation_fn")
    def rank(
        self,
        query: str,
        documents: Iterable[Given],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
        *,
        num_workers: int = 0,
    ) -> list[RankedDict]:
        """``[{"corpus_id": 3, "score": ...}, ...]`` by descending score, with ``"text"`` where documents are returned.

        ``prompt`` and ``prompt_name`` as in ``predict``.

        Raises:
            InvalidInput: as ``predict``; ``apply_softmax``, which would make every score of the one label 1.
            WrongModelKind: the model has several labels.
        """
        check_batch_size(batch_size)
        refuse_tensors(convert_to_numpy, convert_to_tensor, "rank")
        if apply_softmax:
            raise InvalidInput.at("apply_softmax", "softmax over one label makes every score 1; leave it off")
        activation = activation_of(activation_fn)
        documents = list(several("documents", documents))
        if not documents:
            return []
        ranked = self._client.rerank(
            query,
            documents,
            top_k=top_k,
            model=self._model,
            activation=activation,
            prompt_name=prompt_name if prompt is None else None,
            prompt=prompt,
        )
        found: list[RankedDict] = []
        for document in ranked:
            entry: RankedDict = {"corpus_id": document.index, "score": np.float32(document.score)}
            if return_documents:
                entry["text"] = document.document
            found.append(entry)
        return found


def activation_of(function: Any) -> Activation | None:
    """The activation that a torch module stands for, by its name: this client does without torch.

    Raises:
        InvalidInput: another function; the server cannot run it.
    """
    if function is None:
        return None
    name = type(function).__name__
    if name not in _ACTIVATIONS:
        raise InvalidInput.at(
            "activation_fn",
            f"{function!r} cannot travel to the server; use None, torch.nn.Identity() or torch.nn.Sigmoid(), "
            "or apply yours to what Identity returns",
        )
    return _ACTIVATIONS[name]


def _is_single(inputs: Any) -> bool:
    """Whether this is one pair and not a list of pairs: sentence-transformers' rule, where records are pairs too."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.size > 0 and not is_pair(inputs[0])
    if isinstance(inputs, list | tuple):
        return len(inputs) > 0 and not is_pair(inputs[0])
    return False


def _softmax(scores: Float32Array) -> Float32Array:
    """Over the labels; of one label every score is 1, which is what sentence-transformers gives too."""
    if scores.ndim == 1:
        return np.ones_like(scores)
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    softened: Float32Array = shifted / shifted.sum(axis=1, keepdims=True)
    return softened
