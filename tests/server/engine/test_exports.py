import subprocess
import sys

import pytest

import pairwire.server.engine as engine


def test_every_exported_name_is_there_and_the_list_is_sorted() -> None:
    assert list(engine.__all__) == sorted(engine.__all__)
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name


def test_a_name_that_is_not_exported_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Motor'"):
        engine.Motor  # noqa: B018  # the access is the test


def test_reading_a_configuration_loads_neither_runtime_nor_tokenizer() -> None:
    script = (
        "import sys; from pairwire.server.engine import EngineConfig; EngineConfig(); "
        "print(*sorted({'onnxruntime', 'tokenizers', 'numpy', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
