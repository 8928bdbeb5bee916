"""A package is data: whatever is done to one, nothing outside it is read and nothing in it is run."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from pairwire.server.engine import Engine
from pairwire.server.errors import PackageInvalid
from pairwire.server.package import read_package, sha256_of
from pairwire.v1 import manifest_pb2
from tests.server import packages, serving
from tests.server.engine import toys

SERVER = Path(__file__).parents[3] / "server"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return packages.save_package(tmp_path / "demo", toys.cross_encoder_manifest("demo"), toys.wordpiece())


def change_graph(directory: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Another graph, which the manifest vouches for: whoever made the package is the attacker."""
    path = directory / packages.GRAPH_FILE
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    manifest = read_package(directory).manifest
    manifest.variants[0].sha256 = sha256_of(path)
    packages.write_manifest(directory, manifest)


def read(directory: Path) -> Path:
    """All of a package, as a server reads it before it loads anything."""
    package = read_package(directory)
    return package.graph_file(package.variant())


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        stranger = onnx.TensorProto(name="w", dims=[1], data_type=onnx.TensorProto.FLOAT)
        stranger.data_location = onnx.TensorProto.EXTERNAL
        stranger.external_data.add(key="location", value=location)
        model.graph.initializer.append(stranger)

    return change


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "./secret", "sub/../../secret", "secret", ""])
def test_data_that_a_graph_reads_must_be_named_and_verified(location: str, directory: Path) -> None:
    (directory.parent / "secret").write_bytes(bytes(4))
    (directory / "secret").write_bytes(bytes(4))
    change_graph(directory, external(location))
    package = read_package(directory)
    with pytest.raises(PackageInvalid, match="which the manifest does not list"):
        package.graph_file(package.variant())


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", packages.GRAPH_FILE])
def test_links_that_lead_out_of_the_package_are_refused(name: str, directory: Path) -> None:
    outside = directory.parent / name
    (directory / name).rename(outside)
    (directory / name).symlink_to(outside)

    with pytest.raises(PackageInvalid, match="a link that leads out of the package"):
        read(directory)
    (directory / name).unlink()
    (directory / name).symlink_to(name)
    with pytest.raises(PackageInvalid, match=r"missing|there"):
        read(directory)


def test_links_inside_a_package_and_to_it_are_followed(directory: Path) -> None:
    """As Kubernetes mounts volumes."""
    data = directory / "..data"
    data.mkdir()
    for file in [each for each in directory.iterdir() if each.is_file()]:
        file.rename(data / file.name)
        file.symlink_to(Path("..data") / file.name)
    (directory.parent / "link").symlink_to(directory)
    package = read_package(directory.parent / "link")
    package.graph_file(package.variant())


async def test_operators_of_other_libraries_are_not_loaded(directory: Path) -> None:
    def custom(model: onnx.ModelProto) -> None:
        output = model.graph.node[-1].output[0]
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Run", ["before"], [output], domain="com.example.shell"))
        model.opset_import.append(helper.make_opsetid("com.example.shell", 1))

    change_graph(directory, custom)
    with pytest.raises(PackageInvalid, match="cannot be loaded and run"):
        await Engine.open(directory, config=serving.ENGINE)


def test_files_beside_those_of_the_manifest_are_not_looked_at(directory: Path) -> None:
    (directory / "modeling_demo.py").write_text("raise SystemExit('run')")
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    package = read_package(directory)
    package.graph_file(package.variant())


def test_the_server_has_no_way_to_run_what_it_reads() -> None:
    """No eval, no exec, no custom operators; one pickle, between a supervisor and the processes that it started."""
    found = set()
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                if names & {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "torch", "yaml"}:
                    found.add(f"{path.relative_to(SERVER)}: import")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "compile", "__import__"):
                found.add(f"{path.relative_to(SERVER)}: {ast.unparse(node.func)}")
            if isinstance(node, ast.Attribute) and node.attr == "register_custom_ops_library":
                found.add(f"{path.relative_to(SERVER)}: {node.attr}")
    assert found == {"processes/messages.py: import"}


def test_a_manifest_names_only_files_of_its_own_directory(directory: Path) -> None:
    manifest = read_package(directory).manifest
    for name in ("../x.onnx", "/etc/passwd", "a/b", "..", ".", ""):
        changed = manifest_pb2.ModelManifest()
        changed.CopyFrom(manifest)
        changed.variants[0].file = name
        packages.write_manifest(directory, changed)
        with pytest.raises(PackageInvalid):
            read(directory)
