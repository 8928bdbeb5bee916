"""Decoders that read a row from left to right and are asked at its last token: rerankers of language models.

Rows are padded on the right here, and on the left by sentence-transformers. With causal attention no token sees what
follows it, so padding on the right needs no mask at all: the mask of every row is the same triangle. Rotary positions
are relative, so scores are the same up to rounding.

    logits        hidden state of the last token . (row of "yes" - row of "no" of the language model's head)
    classifier    hidden state of the last token . the classifier's rows

so the logits of a vocabulary are never computed. Which token is the last one follows the model: `LogitScore` reads the
last one of the row; transformers' classifiers read the last one that is not the padding token, and a text may end in
that token too.
"""

from __future__ import annotations

from typing import Any

import torch

from ..errors import CheckpointUnsupported
from .adapter_layers import bare

_WINDOWED = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""transformers' model types whose window is known to be that of `Backbone`: most texts are too short to show it."""
_KINDS = ("full_attention", "sliding_attention")
"""Of layers, as transformers calls them."""
MOST_TOKENS = 8192
"""Tokens above which a decoder needs a given limit: its own is that of its positions, not of its purpose."""
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles do not depend on how long a batch is."""


def is_decoder(model: Any) -> bool:
    """Whether tokens of a transformers model only see what stands before them."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def check(model: Any) -> None:
    """Raises what keeps a decoder from being exported.

    Raises:
        CheckpointUnsupported: a kind of position or attention that is not known to be exact here, and that comparing
            short texts would not show.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None)
    unknown = sorted(set(kinds or ()) - set(_KINDS))
    if unknown:
        raise CheckpointUnsupported(
            f"a decoder of type {config.model_type} with layers of {', '.join(unknown)}; expected"
            f" {' and '.join(_KINDS)}"
        )
    if kinds is None and getattr(config, "sliding_window", None) and config.model_type not in _WINDOWED:
        raise CheckpointUnsupported(
            f"a decoder of type {config.model_type} with a sliding window; which of its layers have it is known of"
            f" {', '.join(_WINDOWED)}"
        )
    scaling = getattr(config, "rope_scaling", None) or {}
    rope = scaling.get("rope_type", scaling.get("type", "default"))
    if rope not in _FIXED_ROPE:
        raise CheckpointUnsupported(
            f"rotary embeddings of type {rope} depend on the longest row of a batch; expected {', '.join(_FIXED_ROPE)}"
        )


class Backbone(torch.nn.Module):
    """input_ids [rows, length] -> hidden states [rows, length, hidden] of a decoder without its head."""

    def __init__(self, model: Any) -> None:
        """``model`` is a transformers decoder, with or without a head, in plain ("eager") attention."""
        super().__init__()
        check(model)
        self.model = (
            model.get_decoder() if hasattr(model, "lm_head") else getattr(model, model.base_model_prefix, model)
        )
        self._config = model.config

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Padding may have any id: nobody sees it."""
        states = self.model(input_ids=input_ids, attention_mask=self._masks(input_ids), use_cache=False)
        return torch.as_tensor(states.last_hidden_state)

    def _masks(self, input_ids: torch.Tensor) -> Any:
        """What is added to the products of queries and keys: [1, 1, length, length], by kind of layer if it has any."""
        window = getattr(self._config, "sliding_window", None)
        kinds = getattr(self._config, "layer_types", None)
        if kinds is None:
            return _mask(input_ids, window)
        return {kind: _mask(input_ids, window if kind == "sliding_attention" else None) for kind in set(kinds)}


class LastToken(torch.nn.Module):
    """Hidden states [rows, length, hidden] -> [rows, hidden] of each row's last token."""

    def __init__(self, *, ignored_id: int | None = None) -> None:
        """Tokens with ``ignored_id`` are not counted as last ones; as transformers' classifiers treat padding."""
        super().__init__()
        self._ignored_id = ignored_id

    def forward(self, states: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The first token of a row where it has none that counts."""
        numbers = torch.arange(input_ids.shape[1], device=input_ids.device)
        counted = attention_mask if self._ignored_id is None else attention_mask * (input_ids != self._ignored_id)
        # Not argmax, which ONNX Runtime's int64 does not have everywhere: the largest number that counts.
        last = (numbers * counted).amax(dim=1)
        at = last[:, None, None].expand(-1, 1, states.shape[-1])
        return torch.gather(states, 1, at)[:, 0]


class Scorer(torch.nn.Module):
    """input_ids and attention_mask [rows, length] -> logits [rows, labels] of a decoder that scores pairs."""

    def __init__(self, model: Any, last: LastToken, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """``weight`` [labels, hidden] and ``bias`` [labels] are what the last token is multiplied by."""
        super().__init__()
        self.backbone = Backbone(model)
        self.last = last
        labels, hidden = weight.shape
        # With a bias the product is a Gemm, which no precision of ours touches: one row costs nothing.
        self.head = torch.nn.Linear(hidden, labels, bias=True)
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(torch.zeros(labels) if bias is None else bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Rows are padded on the right."""
        states = self.backbone(input_ids)
        return torch.as_tensor(self.head(self.last(states, input_ids, attention_mask)))


class _Capped(torch.nn.Module):
    """The distance of two logits that are capped first, which is no product with one row."""

    def __init__(self, scorer: Scorer, cap: float) -> None:
        super().__init__()
        self.scorer = scorer
        self._cap = cap

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits = torch.tanh(self.scorer(input_ids, attention_mask) / self._cap) * self._cap
        return logits[:, :1] - logits[:, 1:].sum(dim=1, keepdim=True)


def check_logits(model: Any) -> None:
    """Raises what keeps the head of a language model from being one row.

    Raises:
        CheckpointUnsupported: logits are not a plain product with the head's rows.
    """
    if not isinstance(bare(getattr(model, "lm_head", None)), torch.nn.Linear):
        raise CheckpointUnsupported(f"{type(model).__name__} has no lm_head; expected a language model's head")


def logit_scorer(model: Any, true_id: int, false_id: int | None) -> torch.nn.Module:
    """``LogitScore`` over a language model: the logit of one token, or its distance from another's."""
    check_logits(model)
    ids = [true_id] if false_id is None else [true_id, false_id]
    rows, bias = model.lm_head.weight[ids].detach(), model.lm_head.bias
    bias = torch.zeros(len(ids)) if bias is None else bias[ids].detach()
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap:
        return _Capped(Scorer(model, LastToken(), rows, bias), cap)
    if false_id is not None:
        rows, bias = rows[:1] - rows[1:], bias[:1] - bias[1:]
    return Scorer(model, LastToken(), rows, bias)


def check_classifier(model: Any, pad_token_id: int) -> None:
    """Raises what keeps a decoder with a classifier from reading the right token.

    Raises:
        CheckpointUnsupported: the model does not know the tokenizer's padding, so a score would depend on it.
    """
    known = model.config.pad_token_id
    if known != pad_token_id:
        raise CheckpointUnsupported(
            f"config.json: pad_token_id is {known}, the tokenizer pads with {pad_token_id}: transformers would read"
            " padding in place of the last token; make them equal"
        )


def classifier(model: Any) -> Scorer:
    """A ``...ForSequenceClassification`` whose classifier is called ``score``."""
    head = model.score
    bias = None if head.bias is None else head.bias.detach()
    return Scorer(model, LastToken(ignored_id=model.config.pad_token_id), head.weight.detach(), bias)


def _mask(input_ids: torch.Tensor, window: int | None) -> torch.Tensor:
    numbers = torch.arange(input_ids.shape[1], device=input_ids.device)
    distance = numbers[:, None] - numbers[None, :]
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
