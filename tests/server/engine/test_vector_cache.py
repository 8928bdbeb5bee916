"""Vectors by what made them: model, variant, prompt and text."""

from __future__ import annotations

import dataclasses

import numpy as np

from pairwire.server.engine.models.model import Model
from pairwire.server.engine.vector_cache import VectorCache
from tests.server.engine import toys

MODEL = toys.toy_model(None, toys.bi_encoder_manifest())


def keys_of(model: Model, prompt: str, texts: list[str]) -> list[bytes]:
    return VectorCache(1, model).keys_of(prompt, texts)


def test_a_vector_comes_back_bit_by_bit_and_read_only() -> None:
    cache = VectorCache(10_000, MODEL)
    vectors = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    cache.put([b"a", b"b"], vectors)
    found = cache.get([b"b", b"c", b"a"])
    assert found[1] is None
    for at, row in ((0, 1), (2, 0)):
        vector = found[at]
        assert vector is not None
        assert vector.tobytes() == vectors[row].tobytes()
        assert not vector.flags.writeable


def test_the_bound_holds() -> None:
    cache = VectorCache(2_000, MODEL)
    cache.put([bytes([number]) for number in range(100)], np.ones((100, 50), np.float32))
    statistics = cache.statistics()
    assert 0 < statistics.entries < 100
    assert statistics.bytes <= statistics.limit_bytes == 2_000


def test_one_that_may_hold_nothing_is_off() -> None:
    assert not VectorCache(0, MODEL)
    assert VectorCache(1, MODEL)


def test_whatever_makes_another_vector_makes_another_key() -> None:
    model = MODEL
    keys = keys_of(model, "", ["a", "b", "a"])
    assert keys[0] == keys[2] != keys[1]
    assert keys_of(model, "", ["b", "a"]) == [keys[1], keys[0]]
    others = [
        keys_of(model, "query: ", ["a"]),
        keys_of(dataclasses.replace(model, variant="cpu-int8"), "", ["a"]),
        keys_of(toys.toy_model(None, toys.bi_encoder_manifest(dimensions=5)), "", ["a"]),
        keys_of(toys.toy_model(None, toys.bi_encoder_manifest(max_length=32)), "", ["a"]),
        keys_of(model, "a", [""]),
    ]
    assert len({keys[0], *(other[0] for other in others)}) == 1 + len(others)


def test_what_a_fault_left_is_not_kept() -> None:
    cache = VectorCache(10_000, MODEL)
    cache.put([b"a", b"b", b"c"], np.array([[1, np.nan], [1, 2], [np.inf, 0]], np.float32))
    assert [found is not None for found in cache.get([b"a", b"b", b"c"])] == [False, True, False]


def test_the_manifest_is_read_once_for_all_requests() -> None:
    manifest = toys.bi_encoder_manifest()
    cache = VectorCache(10_000, toys.toy_model(None, manifest))
    before = cache.keys_of("", ["a"])
    manifest.source = "another"  # nobody does: it shows that it is not looked at again
    assert cache.keys_of("", ["a"]) == before
