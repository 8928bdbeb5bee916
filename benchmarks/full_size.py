"""Cross-encoder checkpoints as large as known ones, vocabulary included, with random weights and made-up pieces.

What an export of them takes is real, what they say is not. Nothing is downloaded: pieces are trained on the export's
own texts, and the vocabulary is filled up with others that no text contains.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pairwire.export

TRAINED_PIECES = 4000
"""Pieces that texts are cut into. The texts are few; with more, nearly every word would be one piece."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FullSize:
    """A model that people use."""

    family: str
    """transformers' model type: ``bert`` or ``xlm-roberta``."""
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    positions: int
    """Rows of the position table."""
    max_length: int
    """Tokens."""


FULL_SIZES: Mapping[str, FullSize] = {
    "bert-base": FullSize(
        family="bert", vocabulary=30_522, hidden=768, layers=12, heads=12, positions=512, max_length=512
    ),
    "xlm-r-large": FullSize(
        family="xlm-roberta", vocabulary=250_002, hidden=1024, layers=24, heads=16, positions=8194, max_length=8192
    ),
}
"""bert-base-uncased (110 M parameters) and bge-reranker-v2-m3 (568 M)."""


def save_full_size(shape: FullSize, directory: Path) -> int:
    """Writes the checkpoint, with one label, and returns how many parameters it has."""
    import torch

    transformers: Any = importlib.import_module("transformers")  # which is half typed
    tokenizer = _tokenizer(shape)
    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.hidden,
        "max_position_embeddings": shape.positions,
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 1,
    }
    if shape.family == "xlm-roberta":
        common |= {"type_vocab_size": 1, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(shape.family, **common)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return int(model.num_parameters())


def _tokenizer(shape: FullSize) -> Any:
    transformers: Any = importlib.import_module("transformers")
    if shape.family == "bert":
        return transformers.BertTokenizerFast(
            tokenizer_object=_word_pieces(shape.vocabulary), model_max_length=shape.max_length
        )
    return transformers.XLMRobertaTokenizerFast(
        tokenizer_object=_unigrams(shape.vocabulary), model_max_length=shape.max_length
    )


def _word_pieces(vocabulary: int) -> Any:
    """BERT's kind of tokenizer."""
    from tokenizers import BertWordPieceTokenizer, Tokenizer
    from tokenizers.processors import TemplateProcessing

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(_texts(), vocab_size=TRAINED_PIECES, show_progress=False)
    content = json.loads(trained.to_str())
    pieces = content["model"]["vocab"]
    pieces |= {f"[filler{at}]": at for at in range(len(pieces), vocabulary)}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, pieces[name]) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _unigrams(vocabulary: int) -> Any:
    """XLM-RoBERTa's kind of tokenizer."""
    from tokenizers import SentencePieceUnigramTokenizer, Tokenizer
    from tokenizers.processors import TemplateProcessing

    names = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        _texts(), vocab_size=TRAINED_PIECES, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    content = json.loads(trained.to_str())
    pieces = content["model"]["vocab"]
    pieces += [[f"<filler{at}>", -50.0] for at in range(len(pieces), vocabulary - 1)] + [["<mask>", 0.0]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _texts() -> Iterator[str]:
    """The topics that the export calibrates and compares with."""
    file = Path(pairwire.export.__file__).with_name("texts.jsonl")
    for line in file.read_text(encoding="utf-8").splitlines():
        yield from json.loads(line).values()
