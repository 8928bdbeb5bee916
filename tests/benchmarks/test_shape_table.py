"""Popular shapes with random weights: their tokenizers, and the table of what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.full_size import FULL_SIZES
from benchmarks.pieces import make_tokenizer
from benchmarks.shape_table import as_markdown

VOCABULARY = 5000


@pytest.mark.parametrize(
    ("family", "around"),
    [
        ("bert", ["[CLS]", "[SEP]", "[SEP]"]),
        ("xlm-roberta", ["<s>", "</s>", "</s>", "</s>"]),
        ("deberta-v2", ["[CLS]", "[SEP]", "[SEP]"]),
        ("modernbert", ["[CLS]", "[SEP]", "[SEP]"]),
        ("qwen3", []),
    ],
)
def test_a_tokenizer_has_the_size_and_the_special_tokens_of_its_family(family: str, around: list[str]) -> None:
    tokenizer = make_tokenizer(family, VOCABULARY, 512)
    assert len(tokenizer) == VOCABULARY
    ids = tokenizer("the river floods the valley", "every spring")["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert [piece for piece in pieces if piece in tokenizer.all_special_tokens] == around
    assert 7 + len(around) <= len(pieces) <= 24 + len(around)  # words, not characters
    assert not any("filler" in piece for piece in pieces)
    assert tokenizer.pad_token_id is not None


def test_a_language_model_is_asked_by_a_template_with_its_answers() -> None:
    tokenizer = make_tokenizer("qwen3", VOCABULARY, 512)
    pair = [{"role": "query", "content": "Q"}, {"role": "document", "content": "D"}]
    text = tokenizer.apply_chat_template(pair, tokenize=False)
    assert "<Query>: Q\n<Document>: D<|im_end|>" in text
    assert None not in tokenizer.convert_tokens_to_ids(["yes", "no"])


def test_every_shape_has_a_tokenizer() -> None:
    assert {shape.family for shape in FULL_SIZES.values()} == {
        "bert",
        "xlm-roberta",
        "deberta-v2",
        "modernbert",
        "qwen3",
    }


def test_the_table_has_a_line_for_each_shape_and_data_set_and_says_what_is_left_out() -> None:
    rows: list[dict[str, object]] = [
        {"shape": "s", "dataset": "stsb", "system": "torch-fp32", "pairs_per_s": 10.0},
        {"shape": "s", "dataset": "stsb", "system": "pairwire-int8", "pairs_per_s": 55.5, "ratio_to_torch-fp32": 5.55},
        {"shape": "t", "dataset": "stsb", "system": "pairwire-int8", "pairs_per_s": float(np.float64(7))},
        {"shape": "t", "system": "torch-fp32", "left_out": "not made within 9 s (--build-s)"},
    ]
    assert as_markdown(rows) == [
        "| shape | pairs | torch | pairwire-int8 | pairwire-int8 / torch |",
        "|---|---|---|---|---|",
        "| s | stsb | 10 | 55.5 | 5.55 |",
        "| t | stsb | - | 7 | - |",
        "",
        "- t, torch-fp32: not made within 9 s (--build-s)",
    ]
