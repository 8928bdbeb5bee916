"""Small configurations and tokenizers of the architectures that `tests.checkpoints` builds checkpoints of.

The tokenizers are of a few hundred tokens, trained once on ``checkpoints.TEXTS`` and ``PAIRS`` with the `tokenizers`
library and kept in tests/tokenizers, one of each family. Not trained again on every run: its trainers break ties at
random, and with other ids the random weights score differently. An architecture gets the file of its family with its
own special tokens, normalisation and template around it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES: tuple[str, ...] = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "mpnet",
    "albert",
    "camembert",
    "deberta-v2",
    "deberta-v3",
    "modernbert",
    "modernbert-mean",
)
"""What ``config`` and ``tokenizer`` know.

deberta-v3 is what transformers calls deberta-v2, with the attention of version 3 (shared projections, logarithmic
buckets, normalised relative embeddings); modernbert-mean has a classifier over the mean of all tokens.
"""

FIRST: tuple[str, ...] = ("bert", "roberta", "xlm-roberta", "distilbert", "electra")
"""Those that the passes for a GPU were made on, one of each form of graph. `tests.export.models` tests them on all."""

POSITIONS = 128
"""Most tokens of a row."""
HIDDEN = 32

_COMMON = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_attention_heads": 4, "initializer_range": 0.12}


def config(architecture: str, tokenizer: Any, *, layers: int) -> Any:
    """A transformers configuration."""
    import transformers

    common: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if architecture == "distilbert":
        return transformers.DistilBertConfig(
            **common,
            dim=HIDDEN,
            hidden_dim=64,
            n_layers=layers,
            n_heads=4,
            max_position_embeddings=POSITIONS,
            initializer_range=0.12,
        )
    common |= {**_COMMON, "num_hidden_layers": layers}
    if architecture in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        return _counting_from_the_pad_id(architecture, tokenizer, common)
    if architecture == "electra":
        return transformers.ElectraConfig(**common, embedding_size=16, max_position_embeddings=POSITIONS)
    if architecture == "bert":
        return transformers.BertConfig(**common, max_position_embeddings=POSITIONS)
    if architecture == "albert":  # two layers are one, applied twice
        return transformers.AlbertConfig(**common, embedding_size=16, max_position_embeddings=POSITIONS)
    if architecture in ("deberta-v2", "deberta-v3"):
        return _deberta(architecture, common)
    if architecture in ("modernbert", "modernbert-mean"):
        return _modernbert(architecture, tokenizer, common)
    raise ValueError(f"architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}")


def tokenizer(architecture: str) -> Any:
    """A fast tokenizer of the architecture's own class."""
    import transformers

    if architecture == "roberta":
        return transformers.RobertaTokenizerFast(tokenizer_object=frozen("byte_level_bpe"), model_max_length=POSITIONS)
    if architecture == "xlm-roberta":
        return transformers.XLMRobertaTokenizerFast(tokenizer_object=frozen("unigram"), model_max_length=POSITIONS)
    if architecture == "mpnet":
        return transformers.MPNetTokenizerFast(tokenizer_object=_mpnet(), model_max_length=POSITIONS)
    if architecture == "albert":
        return transformers.AlbertTokenizerFast(tokenizer_object=_albert(), model_max_length=POSITIONS)
    if architecture == "camembert":
        return transformers.CamembertTokenizerFast(
            tokenizer_object=_camembert(), model_max_length=POSITIONS, additional_special_tokens=["<s>NOTUSED"]
        )
    if architecture in ("deberta-v2", "deberta-v3"):
        return transformers.DebertaV2TokenizerFast(tokenizer_object=_unigram_of_deberta(), model_max_length=POSITIONS)
    if architecture in ("modernbert", "modernbert-mean"):
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=_bpe_of_modernbert(),
            model_max_length=POSITIONS,
            model_input_names=["input_ids", "attention_mask"],
            **_names("[UNK] [CLS] [SEP] [PAD] [MASK]"),
        )
    families = {
        "bert": transformers.BertTokenizerFast,
        "distilbert": transformers.DistilBertTokenizerFast,
        "electra": transformers.ElectraTokenizerFast,
    }
    return families[architecture](tokenizer_object=frozen("word_piece"), model_max_length=POSITIONS)


def frozen(name: str, **changes: Any) -> Any:
    """The tokenizer of a file in tests/tokenizers; ``changes`` take the place of its parts."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(_content(name) | changes))


def _counting_from_the_pad_id(architecture: str, tokenizer: Any, common: dict[str, Any]) -> Any:
    """Positions start after the pad id, so two more are needed than a row has tokens (514 for 512 in the real ones)."""
    import transformers

    common = common | {"max_position_embeddings": POSITIONS + 2}
    common |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if architecture == "mpnet":
        return transformers.MPNetConfig(**common)
    families = {
        "roberta": transformers.RobertaConfig,
        "xlm-roberta": transformers.XLMRobertaConfig,
        "camembert": transformers.CamembertConfig,
    }
    return families[architecture](**common, type_vocab_size=1)


def _deberta(architecture: str, common: dict[str, Any]) -> Any:
    """Both versions attend by content and by distance; version 3 as microsoft/deberta-v3-base does."""
    import transformers

    common = common | {"max_position_embeddings": POSITIONS, "relative_attention": True, "type_vocab_size": 0}
    common |= {"position_biased_input": False, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1}
    if architecture == "deberta-v2":
        return transformers.DebertaV2Config(**common | {"type_vocab_size": 2, "position_biased_input": True})
    return transformers.DebertaV2Config(
        **common,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pooler_dropout=0,
        pooler_hidden_act="gelu",
        layer_norm_eps=1e-7,
    )


def _modernbert(architecture: str, tokenizer: Any, common: dict[str, Any]) -> Any:
    """Layers take turns: all tokens, then the 8 to either side."""
    import transformers

    return transformers.ModernBertConfig(
        **common,
        global_attn_every_n_layers=2,
        local_attention=16,
        max_position_embeddings=POSITIONS,
        classifier_pooling="mean" if architecture.endswith("mean") else "cls",
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        reference_compile=False,
    )


def _mpnet() -> Any:
    """BERT's pieces with RoBERTa's special tokens and ids: pad is 1."""
    content = _content("word_piece")
    names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    pieces = [piece for piece, at in content["model"]["vocab"].items() if at >= len(names)]
    model = content["model"] | {"vocab": {piece: at for at, piece in enumerate([*names, *pieces])}}
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
    around = roberta | {"trim_offsets": True, "add_prefix_space": False}
    return frozen("word_piece", model=model, added_tokens=_added(names), post_processor=around)


def _albert() -> Any:
    normalizer = [
        {"type": "Replace", "pattern": {"String": "``"}, "content": '"'},
        {"type": "Replace", "pattern": {"String": "''"}, "content": '"'},
        {"type": "NFKD"},
        {"type": "StripAccents"},
        {"type": "Lowercase"},
    ]
    return _unigram(
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        unknown=1,
        pieces=["[CLS]:0 A:0 [SEP]:0", "[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1"],
        normalizer={"type": "Sequence", "normalizers": normalizer},
        pre_tokenizer=_words_then_metaspace(),
    )


def _camembert() -> Any:
    return _unigram(
        ["<s>NOTUSED", "<pad>", "<unk>", "<s>", "</s>", "<mask>"],
        unknown=2,
        pieces=["<s>:0 A:0 </s>:0", "<s>:0 A:0 </s>:0 </s>:0 B:0 </s>:0"],
        pre_tokenizer=_words_then_metaspace(),
    )


def _unigram_of_deberta() -> Any:
    return _unigram(
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
        unknown=3,
        pieces=["[CLS]:0 A:0 [SEP]:0", "[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1"],
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Strip", "strip_left": True, "strip_right": True},
                {"type": "NFKC"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
    )


def _unigram(names: Sequence[str], *, unknown: int, pieces: Sequence[str], **changes: Any) -> Any:
    """The Unigram model with other special tokens before its pieces."""
    model = _content("unigram")["model"]
    vocabulary = [[name, 0.0] for name in names] + model["vocab"][5:]
    template = _template(*pieces, names=names)
    return frozen(
        "unigram",
        model=model | {"vocab": vocabulary, "unk_id": unknown},
        added_tokens=_added(names),
        post_processor=template,
        **changes,
    )


def _bpe_of_modernbert() -> Any:
    """Special tokens behind the pieces, and, as in the real one, runs of spaces as tokens that are not special."""
    content = _content("byte_level_bpe")
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    pieces = [piece for piece, at in content["model"]["vocab"].items() if at >= len(names)]
    begin = len(pieces)
    vocabulary = {piece: at for at, piece in enumerate([*pieces, *names])}
    runs = [
        _token(len(vocabulary) + at, " " * count, normalized=True, special=False) for at, count in enumerate((4, 3, 2))
    ]
    return frozen(
        "byte_level_bpe",
        model=content["model"] | {"vocab": vocabulary},
        added_tokens=[*_added(names, begin), *runs],
        normalizer={"type": "NFC"},
        post_processor=_template("[CLS]:0 A:0 [SEP]:0", "[CLS]:0 A:0 [SEP]:0 B:0 [SEP]:0", names=names, begin=begin),
    )


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "tokenizers" / f"{name}.json").read_text())
    return content


def _names(names: str) -> dict[str, str]:
    roles = ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    return dict(zip(roles, names.split(), strict=True))


def _added(names: Sequence[str], begin: int = 0) -> list[dict[str, Any]]:
    """Special tokens; as in the real tokenizers, a mask takes the spaces before it."""
    return [_token(begin + at, name, lstrip="mask" in name.lower()) for at, name in enumerate(names)]


def _token(
    at: int, content: str, *, lstrip: bool = False, normalized: bool = False, special: bool = True
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": lstrip, "rstrip": False, "normalized": normalized, "special": special}
    return {"id": at, "content": content, **flags}


def _template(single: str, pair: str, *, names: Sequence[str], begin: int = 0) -> dict[str, Any]:
    """A TemplateProcessing of pieces written "<token>:<type>"; A and B are the texts."""

    def pieces(written: str) -> list[dict[str, Any]]:
        parts = [part.rsplit(":", 1) for part in written.split()]
        return [
            {"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": int(kind)}} for name, kind in parts
        ]

    used = {part.rsplit(":", 1)[0] for part in pair.split()} - {"A", "B"}
    special = {name: {"id": name, "ids": [begin + names.index(name)], "tokens": [name]} for name in sorted(used)}
    return {"type": "TemplateProcessing", "single": pieces(single), "pair": pieces(pair), "special_tokens": special}


def _words_then_metaspace() -> dict[str, Any]:
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
