"""A bounded cache: what goes first, what it really takes, and that threads do not disturb each other."""

import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.cache import ENTRY_BYTES, ByteCache


def _key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def _entry(value: bytes) -> int:
    return sys.getsizeof(_key(0)) + sys.getsizeof(value) + ENTRY_BYTES


def test_what_was_put_in_is_found_and_counted() -> None:
    cache = ByteCache(10_000)
    assert cache.get([_key(1)]) == [None]
    cache.put([(_key(1), b"one"), (_key(2), b"")])
    assert cache.get([_key(2), _key(3), _key(1)]) == [b"", None, b"one"]
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (2, 2, 2)
    assert statistics.bytes == _entry(b"one") + _entry(b"")
    assert statistics.limit_bytes == 10_000


def test_the_least_recently_used_goes_first() -> None:
    cache = ByteCache(3 * _entry(b"x"))
    cache.put((_key(number), b"x") for number in range(3))
    cache.get([_key(0)])
    cache.put([(_key(3), b"x")])
    assert cache.get([_key(number) for number in range(4)]) == [b"x", None, b"x", b"x"]


def test_what_is_larger_than_the_cache_never_comes_and_drives_nothing_out() -> None:
    cache = ByteCache(2 * _entry(b"x"))
    cache.put([(_key(0), b"x"), (_key(1), bytes(10_000))])
    assert cache.get([_key(0), _key(1)]) == [b"x", None]


def test_a_cache_of_no_bytes_is_off() -> None:
    assert not ByteCache(0)
    assert ByteCache(1)


@given(st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=300)), max_size=80), st.integers(0, 3000))
def test_the_limit_holds_and_the_count_is_true(items: list[tuple[int, bytes]], limit: int) -> None:
    cache = ByteCache(limit)
    for number, value in items:
        cache.put([(_key(number), value)])
        known = [value for value in cache.get([_key(number) for number in range(21)]) if value is not None]
        statistics = cache.statistics()
        assert statistics.bytes == sum(map(_entry, known)) <= limit
        assert statistics.entries == len(known)


@pytest.mark.parametrize("entries", [1_000, 5_000, 22_000, 90_000])
def test_no_entry_takes_more_memory_than_is_counted(entries: int) -> None:
    tracemalloc.start()
    try:
        cache = ByteCache(1 << 30)
        cache.put((_key(number), bytes(48)) for number in range(entries))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.6 * cache.statistics().bytes < taken <= cache.statistics().bytes


def test_threads_do_not_disturb_each_other() -> None:
    cache = ByteCache(40 * _entry(b"12345678"))
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for step in range(2_000):
            number = (seed * 7919 + step * 104_729) % 100
            (found,) = cache.get([_key(number)])
            if found is None:
                cache.put([(_key(number), number.to_bytes(8, "little"))])
            elif found != number.to_bytes(8, "little"):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statistics = cache.statistics()
    assert not wrong
    assert statistics.hits + statistics.misses == 8_000
    assert statistics.bytes <= statistics.limit_bytes
