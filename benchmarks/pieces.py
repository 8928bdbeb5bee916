"""Tokenizers of the kinds and sizes of known models, trained on the export's own texts: nothing is downloaded.

Texts are cut into a few thousand trained pieces, about as many a word as with the real ones, and the vocabulary is
filled up to its real size with pieces that no text contains, so that tables are as large as the real ones.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pairwire.export

TRAINED_PIECES = 4000
"""Pieces that texts are cut into. The texts are few; with more, nearly every word would be one piece."""
YES_OR_NO = """\
{%- macro said(role) -%}
{{ messages | selectattr("role", "eq", role) | map(attribute="content") | first }}
{%- endmacro -%}
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: {{ said("query") }}
<Document>: {{ said("document") }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""
"""What Qwen3-Reranker is asked; Jinja drops the last line end."""


def make_tokenizer(family: str, vocabulary: int, max_length: int, real: Path | None = None) -> Any:
    """The tokenizer of a family of models; ``real`` is BERT's own tokenizer.json, if there is one."""
    transformers: Any = importlib.import_module("transformers")  # which is half typed
    options: dict[str, Any] = {"model_max_length": max_length}
    if family == "bert":
        pieces = _word_pieces(vocabulary) if real is None else _from_file(real)
        return transformers.BertTokenizerFast(tokenizer_object=pieces, **options)
    if family == "xlm-roberta":
        pieces = _unigrams(vocabulary, ["<s>", "<pad>", "</s>", "<unk>"], "<mask>", "<s> $A </s> </s> $B </s>")
        return transformers.XLMRobertaTokenizerFast(tokenizer_object=pieces, **options)
    if family == "deberta-v2":
        names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
        pieces = _unigrams(vocabulary, names, "[MASK]", "[CLS] $A [SEP] $B:1 [SEP]:1")
        return transformers.DebertaV2TokenizerFast(tokenizer_object=pieces, **options)
    if family == "modernbert":
        names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
        pieces = _byte_pairs(vocabulary, names, "[CLS] $A [SEP] $B [SEP]")
        roles = dict(zip(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), names, strict=True))
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=pieces, model_input_names=["input_ids", "attention_mask"], **roles, **options
        )
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no"]
    made = transformers.Qwen2TokenizerFast(
        tokenizer_object=_byte_pairs(vocabulary, names, None),
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        **options,
    )
    made.chat_template = YES_OR_NO
    return made


def _from_file(file: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _word_pieces(vocabulary: int) -> Any:
    """BERT's kind of tokenizer."""
    from tokenizers import BertWordPieceTokenizer

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(_texts(), vocab_size=TRAINED_PIECES, show_progress=False)
    content = json.loads(trained.to_str())
    pieces = content["model"]["vocab"]
    pieces |= {f"[filler{at}]": at for at in range(len(pieces), vocabulary)}
    return _templated(content, "[CLS] $A [SEP] $B:1 [SEP]:1")


def _unigrams(vocabulary: int, names: list[str], mask: str, pair: str) -> Any:
    """The kind of tokenizer that XLM-RoBERTa and DeBERTa-v3 have; the mask is its last piece."""
    from tokenizers import SentencePieceUnigramTokenizer

    unknown = next(name for name in names if "unk" in name.lower())
    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        _texts(), vocab_size=TRAINED_PIECES, special_tokens=names, unk_token=unknown, show_progress=False
    )
    content = json.loads(trained.to_str())
    pieces = content["model"]["vocab"]
    pieces += [[f"<filler{at}>", -50.0] for at in range(len(pieces), vocabulary - 1)] + [[mask, 0.0]]
    return _templated(content, pair)


def _byte_pairs(vocabulary: int, names: list[str], pair: str | None) -> Any:
    """The kind of tokenizer that ModernBERT and Qwen have, which puts nothing around a text without ``pair``."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(_texts(), vocab_size=TRAINED_PIECES, special_tokens=names, show_progress=False)
    content = json.loads(trained.to_str())
    pieces = content["model"]["vocab"]
    pieces |= {f"<filler{at}>": at for at in range(len(pieces), vocabulary)}
    return Tokenizer.from_str(json.dumps(content)) if pair is None else _templated(content, pair)


def _templated(content: dict[str, Any], pair: str) -> Any:
    """The tokenizer with special tokens around texts; a text alone has what stands around the first of a pair."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(json.dumps(content))
    words = pair.split()
    names = sorted({word.partition(":")[0] for word in words if not word.startswith("$")})
    tokenizer.post_processor = TemplateProcessing(
        single=" ".join(words[:3]),
        pair=pair,
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
    return tokenizer


def _texts() -> Iterator[str]:
    """The topics that the export calibrates and compares with."""
    file = Path(pairwire.export.__file__).with_name("texts.jsonl")
    for line in file.read_text(encoding="utf-8").splitlines():
        yield from json.loads(line).values()
