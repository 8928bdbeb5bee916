import pytest

from pairwire.server.runtime.processor import int8_saturates, processor_flags, processor_name


def test_every_processor_has_a_name() -> None:
    assert processor_name()


def test_flags_are_words() -> None:
    assert ":" not in processor_flags()


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "sse4_1 avx2", True),
        ("AMD64", "", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx512f avx512_vnni", False),
        ("aarch64", "", False),
    ],
)
def test_only_x86_without_vnni_needs_the_slower_exact_kernels(machine: str, flags: str, saturates: bool) -> None:
    assert int8_saturates(machine, flags) is saturates
