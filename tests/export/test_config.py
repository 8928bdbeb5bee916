from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pairwire.export import ExportConfig
from pairwire.export.config import Precision
from pairwire.server.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ()}, "at least one of fp32, int8, int8-dynamic, fp16"),
        ({"precisions": ("int4",)}, "'int4' is not one of"),
        ({"precisions": ("int8", "int8")}, "twice"),
        ({"max_diff": 0.0}, "max-diff: 0.0 is not a difference"),
        ({"keep_float": -1}, "keep-float: -1 is no number of layers"),
        ({"keep_float": 1, "precisions": ("fp32",)}, "about int8 variants; add --precision int8"),
        ({"max_diff": 0.1, "precisions": ("fp32",)}, "max-diff: about int8 variants"),
        ({"sensitivity": True, "parity": False}, "its table goes into the parity report"),
        ({"max_diff": 0.1, "parity": False}, "no-parity: contradicts"),
        ({"kind": "decoder"}, "none of cross-encoder, bi-encoder, sparse-encoder"),
        ({"max_length": 3}, "leaves no room"),
        ({"parity_threshold": 98.0}, "not a correlation"),
        ({"parity": False, "parity_threshold": 0.9}, "contradicts"),
        ({"activation": "tanh"}, "'tanh' is none of identity, sigmoid, softmax"),
        ({"score_scale": 0.0}, "score-scale: 0.0 is not a scale"),
        ({"score_scale": -0.2}, "keeps the order; above 0"),
        ({"score_scale": float("nan")}, "score-scale"),
        ({"score_bias": float("inf")}, "score-bias: inf is not a finite number"),
        ({"parity": False, "parity_data": Path("pairs.jsonl")}, "contradicts"),
    ],
)
def test_option_that_cannot_work_is_refused_on_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigInvalid, match=message):
        ExportConfig(checkpoint="model", output=Path("out"), **options)


def test_default_is_one_int8_variant_with_parity() -> None:
    config = ExportConfig(checkpoint="model", output=Path("out"))
    assert config.precisions == ("int8",)
    assert config.parity


@pytest.mark.parametrize(
    ("precision", "provider"), [("fp32", "cpu"), ("int8", "cpu"), ("int8-dynamic", "cpu"), ("fp16", "cuda")]
)
def test_a_precision_says_where_it_runs(precision: str, provider: str) -> None:
    assert Precision(precision).provider == provider
