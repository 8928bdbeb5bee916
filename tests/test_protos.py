"""The generated modules beside the .proto files are what the pinned generator makes of them today."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parent.parent / "protos"
FILES = sorted((PROTOS / "pairwire" / "v1").glob("*.proto"))
GENERATED = sorted(path for path in (PROTOS / "pairwire" / "v1").iterdir() if "_pb2" in path.name)
FOREIGN = PROTOS / "pairwire" / "foreign"


def _generate(out: Path) -> None:
    """The same calls as `make protos`, into another directory."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed (the [dev] extra has it)")
    bin_dir = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={bin_dir / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *plugins]
    subprocess.run([*protoc, f"--python_out={out}", f"--mypy_out=quiet:{out}", *map(str, FILES)], check=True)
    services = [str(path) for path in FILES if "\nservice " in path.read_text(encoding="utf-8")]
    subprocess.run([*protoc, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services], check=True)
    foreign = map(str, sorted(FOREIGN.glob("*.proto")))
    subprocess.run([*protoc, f"--python_out={out}", f"--mypy_out=quiet:{out}", *foreign], check=True)


def test_generated_modules_are_current(tmp_path: Path) -> None:
    if not shutil.which("protoc-gen-mypy", path=str(Path(sys.executable).parent)):
        pytest.skip("mypy-protobuf is not installed (the [dev] extra has it)")
    _generate(tmp_path)
    fresh = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pairwire" / "v1").iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in GENERATED}
    assert sorted(fresh) == sorted(kept), "run `make protos`"
    stale = [name for name in fresh if fresh[name] != kept[name]]
    assert not stale, f"run `make protos`: {stale} differ"


def test_foreign_modules_are_current_and_in_a_pool_of_their_own(tmp_path: Path) -> None:
    if not shutil.which("protoc-gen-mypy", path=str(Path(sys.executable).parent)):
        pytest.skip("mypy-protobuf is not installed (the [dev] extra has it)")
    _generate(tmp_path)
    for path in sorted((tmp_path / "pairwire" / "foreign").iterdir()):
        fresh = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            assert "_descriptor_pool.Default()" in fresh, "the generator has changed: look at `make protos`"
            fresh = fresh.replace(
                "from google.protobuf import descriptor_pool as _descriptor_pool", "from .pool import POOL as _pool"
            ).replace("_descriptor_pool.Default()", "_pool")
        assert (FOREIGN / path.name).read_text(encoding="utf-8") == fresh, "run `make protos`"


_BESIDE_ANOTHER = """
from google.protobuf import descriptor_pb2, descriptor_pool
for name in ("inference", "tei.v1"):
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.message_type.add(name="ServerLiveRequest").field.add(name="other", number=9, type=9, label=1)
    file.message_type.add(name="InfoRequest")
    descriptor_pool.Default().Add(file)
import pairwire.foreign.kserve_pb2, pairwire.foreign.tei_pb2, pairwire.server.app
"""


def test_a_process_may_have_other_messages_of_the_same_names() -> None:
    """tritonclient, kserve and mlserver each register ``inference.*`` in protobuf's default pool."""
    subprocess.run([sys.executable, "-c", _BESIDE_ANOTHER], check=True)
