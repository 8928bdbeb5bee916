"""Small decoders and their tokenizer, for the rerankers that `tests.checkpoints` builds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import architectures

DECODERS: tuple[str, ...] = ("qwen3", "qwen2", "llama", "mistral", "gemma", "gemma2")
"""What ``config`` knows: transformers' model types."""

POSITIONS = 320
"""Most tokens of a row: the chat template alone has some hundred of the tokenizer below."""

TEMPLATE = """\
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first \
| default("Given a web search query, retrieve relevant passages that answer the query") }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""
"""The prompt of Qwen3-Reranker as a chat template with the roles of sentence-transformers; Jinja drops its last line
end."""

ZERANK_TEMPLATE = """\
{%- for message in messages -%}
{%- if message["role"] == "query" -%}
<|im_start|>system
{{ message["content"] }}<|im_end|>
{% elif message["role"] == "document" -%}
<|im_start|>user
{{ message["content"] }}<|im_end|>
{% endif -%}
{%- endfor -%}
<|im_start|>assistant
"""
"""The query as what the system says and the document as what the user says, as zerank writes a pair."""

MXBAI_TEMPLATE = """\
<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
<|im_start|>user
query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
You are a search relevance expert who evaluates how well documents match search queries. For each query-document pair, \
carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 for not \
relevant, 1 for relevant).
Relevance:<|im_end|>
<|im_start|>assistant
"""
"""The prompt of mxbai-rerank-v2."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_ANSWERS = ("ye", "yes", "no")
"""Pieces that the frozen tokenizer lacks, in the order of their merges."""


def tokenizer(*, template: str | None = TEMPLATE, **changes: Any) -> Any:
    """Byte-level BPE as Qwen's: no special tokens around a text, NFC, left padding. ``changes`` go to its class."""
    from transformers import Qwen2TokenizerFast

    made = Qwen2TokenizerFast(
        tokenizer_object=architectures.frozen(
            "byte_level_bpe",
            model=_model(),
            added_tokens=[_added(at, token) for at, token in enumerate(_SPECIAL)],
            normalizer={"type": "NFC"},
            post_processor={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ),
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        **{"padding_side": "left", "model_max_length": POSITIONS} | changes,
    )
    made.chat_template = template
    return made


def config(architecture: str, tokenizer: Any, *, layers: int = 2) -> Any:
    """Of 32 units in 4 heads that share 2 heads of keys and values, and, where there is one, a window of 48 tokens."""
    from transformers import AutoConfig

    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": architectures.HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.12,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if architecture in ("mistral", "gemma2"):
        common["sliding_window"] = 48
    if architecture == "qwen2":
        common |= {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1}
        del common["head_dim"]
    return AutoConfig.for_model(architecture, **common)


def last_states(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """[pairs, hidden] of the last tokens, of pairs as the chat template writes them or, without one, joined."""
    import torch

    rows = []
    for first, second in pairs:
        roles = [{"role": "query", "content": first}, {"role": "document", "content": second}]
        text = tokenizer.apply_chat_template(roles, tokenize=False) if tokenizer.chat_template else first + second
        rows.append(tokenizer(text, return_tensors="pt")["input_ids"])
    with torch.no_grad():
        return torch.cat([model.eval()(input_ids=row).last_hidden_state[:, -1] for row in rows])


def spread(rows: Any, states: Any) -> Any:
    """Rows [labels, hidden] of a head, changed so that the logits of ``states`` have mean 0 and deviation 1.5.

    There is no bias to shift them by: the rows lose what they have in common with the mean state.
    """
    mean = states.mean(dim=0)
    rows = rows - (rows @ mean / (mean @ mean))[:, None] * mean
    return rows * (1.5 / (states @ rows.T).std(dim=0))[:, None]


def _model() -> dict[str, Any]:
    """The pieces of the frozen tokenizer behind other special tokens, and those of the answers."""
    path = Path(__file__).parent / "tokenizers" / "byte_level_bpe.json"
    model: dict[str, Any] = json.loads(path.read_text())["model"]
    pieces = [piece for piece, at in model["vocab"].items() if at >= 5]
    new = [piece for piece in _ANSWERS if piece not in pieces]
    merges = [[piece[:-1], piece[-1]] for piece in new]
    vocabulary = {piece: at for at, piece in enumerate([*_SPECIAL, *pieces, *new])}
    return model | {"vocab": vocabulary, "merges": model["merges"] + merges}


def _added(at: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": at, "content": content, **flags}
