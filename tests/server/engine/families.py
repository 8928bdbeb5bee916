"""transformers' fast tokenizers of every family, small: those of the architectures, and those that differ in a rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests import architectures

_ROLES = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_UNLIKE = ("bert", "roberta", "xlm-roberta", "mpnet", "albert", "camembert", "deberta-v2", "modernbert")


def tokenizer(family: str) -> Any:
    """One of ``NAMES``."""
    return _OWN[family]() if family in _OWN else architectures.tokenizer(family)


def _cased() -> Any:
    from transformers import BertTokenizerFast

    content = json.loads(architectures.frozen("word_piece").to_str())
    normalizer = content["normalizer"] | {"lowercase": False, "strip_accents": False}
    return BertTokenizerFast(
        tokenizer_object=architectures.frozen("word_piece", normalizer=normalizer),
        do_lower_case=False,
        strip_accents=False,
    )


def _cased_without_accents() -> Any:
    from transformers import BertTokenizerFast

    content = json.loads(architectures.frozen("word_piece").to_str())
    normalizer = content["normalizer"] | {"lowercase": False, "strip_accents": True}
    return BertTokenizerFast(
        tokenizer_object=architectures.frozen("word_piece", normalizer=normalizer),
        do_lower_case=False,
        strip_accents=True,
    )


def _roberta_with_a_space_before() -> Any:
    from transformers import RobertaTokenizerFast

    return RobertaTokenizerFast(tokenizer_object=architectures.frozen("byte_level_bpe"), add_prefix_space=True)


def _decoder() -> Any:
    """GPT's kin: nothing is put around a text."""
    from transformers import PreTrainedTokenizerFast

    post = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    plain = architectures.frozen("byte_level_bpe", post_processor=post)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, **_ROLES, additional_special_tokens=["<|im_start|>", "<|im_end|>"]
    )


def _space_before_the_first() -> Any:
    """Llama's kin: a space before the first word of each text, <s> before the text."""
    from transformers import PreTrainedTokenizerFast

    template = {
        "type": "TemplateProcessing",
        "single": [_special("<s>", 0), _sequence("A", 0)],
        "pair": [_special("<s>", 0), _sequence("A", 0), _special("<s>", 1), _sequence("B", 1)],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    plain = architectures.frozen("unigram", pre_tokenizer=metaspace, normalizer=None, post_processor=template)
    return PreTrainedTokenizerFast(tokenizer_object=plain, **_ROLES)


def _greedy_specials() -> Any:
    """Added tokens that take the spaces on both sides, a word that is one only where it stands alone."""
    from tokenizers import AddedToken
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(tokenizer_object=architectures.frozen("word_piece"))
    tokenizer.add_tokens(
        [
            AddedToken("[SEP]", lstrip=True, rstrip=True, special=True, normalized=False),
            AddedToken("<mask>", lstrip=True, rstrip=True, special=True, normalized=False),
            AddedToken("cat", single_word=True),
            AddedToken("Straße", normalized=True),
        ]
    )
    return tokenizer


def _special(token: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": kind}}


def _sequence(text: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": text, "type_id": kind}}


_OWN: Mapping[str, Callable[[], Any]] = {
    "bert-cased": _cased,
    "bert-cased-without-accents": _cased_without_accents,
    "bert-greedy-specials": _greedy_specials,
    "roberta-prefix-space": _roberta_with_a_space_before,
    "decoder": _decoder,
    "metaspace-first": _space_before_the_first,
}
NAMES = (*_UNLIKE, *_OWN)
