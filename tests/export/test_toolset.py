from __future__ import annotations

from importlib import metadata

import pytest

from pairwire.export.toolset import NEEDED, Toolset, look

FIRST = {"torch": "2.13.0", "transformers": "4.57.6", "sentence-transformers": "5.7.0", "onnx": "1.23.2"}
NEWEST = FIRST | {"transformers": "5.24.0", "sentence-transformers": "6.2.0"}
OPTIMUM, SCRIPT = {"optimum-onnx": "0.1.0"}, {"onnxscript": "0.7.2"}


def of(**versions: str) -> Toolset:
    def version_of(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    return look(version_of)


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (FIRST | OPTIMUM | SCRIPT, "traced by torch.jit.trace, optimum, torch.export"),
        (FIRST, "checkpoints of transformers 4, and of transformers 5 where this release reads them"),
        (NEWEST | SCRIPT, "checkpoints of transformers 4 and 5, traced by torch.jit.trace, torch.export"),
        ({}, "nothing: pip install 'pairwire[export]'"),
        ({"torch": "2.13.0", "onnx": "1.23.2"}, "nothing, transformers and sentence-transformers missing: pip install"),
    ],
)
def test_what_is_installed_says_what_can_be_exported(versions: dict[str, str], said: str) -> None:
    tools = of(**versions)
    assert said in str(tools)
    assert tools.is_complete == set(NEEDED).issubset(versions)
    assert all(f"{name} {version}" in str(tools) for name, version in versions.items())


def test_optimum_does_not_go_with_transformers_5() -> None:
    assert "optimum-onnx 0.1.0 cannot be used with transformers 5.24.0" in of(**NEWEST, **OPTIMUM).problem
    assert not of(**NEWEST).problem
    assert not of(**FIRST, **OPTIMUM).problem


def test_this_environment_is_one_of_the_two_sets() -> None:
    tools = look()
    assert tools.is_complete
    assert not tools.problem
    assert tools.major("transformers") in (4, 5)
