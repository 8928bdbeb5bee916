from collections.abc import Callable
from importlib import metadata

import pytest

from pairwire.server.errors import RuntimeMissing
from pairwire.server.runtime.wheels import check_wheels


def _installed(*names: str) -> Callable[[str], str]:
    def version_of(name: str) -> str:
        if name in names:
            return "1.31.1"
        raise metadata.PackageNotFoundError(name)

    return version_of


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_one_wheel_is_right(name: str) -> None:
    assert check_wheels(_installed(name)) == name


def test_this_environment_is_right() -> None:
    assert check_wheels() in ("onnxruntime", "onnxruntime-gpu")


def test_neither_says_what_to_install() -> None:
    with pytest.raises(RuntimeMissing, match=r"not installed; install `pairwire\[cpu\]`"):
        check_wheels(_installed())


def test_both_says_what_to_remove() -> None:
    with pytest.raises(RuntimeMissing, match="overwrite each other; run `pip uninstall"):
        check_wheels(_installed("onnxruntime", "onnxruntime-gpu"))
