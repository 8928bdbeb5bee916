"""The generated modules beside the .proto files are what the pinned generator makes of them today."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parent.parent / "protos"
FILES = sorted((PROTOS / "pairwire" / "v1").glob("*.proto"))
GENERATED = sorted(path for path in (PROTOS / "pairwire" / "v1").iterdir() if "_pb2" in path.name)


def _generate(out: Path) -> None:
    """The same two calls as `make protos`, into another directory."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed (the [dev] extra has it)")
    bin_dir = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={bin_dir / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *plugins]
    subprocess.run([*protoc, f"--python_out={out}", f"--mypy_out=quiet:{out}", *map(str, FILES)], check=True)
    services = [str(path) for path in FILES if "\nservice " in path.read_text(encoding="utf-8")]
    subprocess.run([*protoc, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services], check=True)


def test_generated_modules_are_current(tmp_path: Path) -> None:
    if not shutil.which("protoc-gen-mypy", path=str(Path(sys.executable).parent)):
        pytest.skip("mypy-protobuf is not installed (the [dev] extra has it)")
    _generate(tmp_path)
    fresh = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pairwire" / "v1").iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in GENERATED}
    assert sorted(fresh) == sorted(kept), "run `make protos`"
    stale = [name for name in fresh if fresh[name] != kept[name]]
    assert not stale, f"run `make protos`: {stale} differ"
