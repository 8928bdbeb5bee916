"""Where the lengths come from."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.batching.lengths import estimating_counter, load_lengths, names, tokenizer_counter

COUNT = estimating_counter(512)


def test_without_tokenizer_words_and_marks_are_counted() -> None:
    assert COUNT([("How are you?", "Fine, thanks.")]).tolist() == [round(8 * 1.15) + 3]
    assert COUNT([("word " * 1000, "x")]).tolist() == [512]


def test_a_package_s_tokenizer_counts_exactly(cross_encoder_package: Path) -> None:
    count = tokenizer_counter(cross_encoder_package)
    short, long = count([("a", "b"), ("a", "b " * 1000)]).tolist()
    assert short == 5
    assert long > 50


def test_the_synthetic_distribution_is_seeded_and_wide() -> None:
    (series,) = load_lengths("lognormal", None, COUNT, 512, seed=1)
    (again,) = load_lengths("lognormal", None, COUNT, 512, seed=1)
    assert np.array_equal(series, again)
    assert np.median(series) == pytest.approx(64, abs=3)
    assert series.min() >= 8
    assert series.max() <= 512


def test_mixed_is_all_there_is() -> None:
    assert names(None) == ["builtin", "lognormal", "mixed"]
    assert names(Path("data")) == ["stsb", "qnli", "xquad", "scifact", "lognormal", "mixed"]
    assert len(load_lengths("mixed", None, COUNT, 512, seed=1)) == 2
