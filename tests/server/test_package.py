from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from pairwire.server.errors import PackageInvalid
from pairwire.server.package import read_package, sha256_of
from pairwire.v1 import manifest_pb2
from tests.server import packages
from tests.server.engine import toys


@pytest.fixture
def manifest() -> manifest_pb2.ModelManifest:
    return toys.cross_encoder_manifest("demo")


@pytest.fixture
def directory(tmp_path: Path, manifest: manifest_pb2.ModelManifest) -> Path:
    return packages.save_package(tmp_path / "demo", manifest, toys.wordpiece())


def test_a_package_is_what_its_manifest_says(directory: Path, manifest: manifest_pb2.ModelManifest) -> None:
    package = read_package(str(directory))
    assert package.name == "demo"
    assert package.manifest == manifest
    assert package.tokenizer_file == directory / "tokenizer.json"
    assert package.graph_file(package.variant()) == directory / packages.GRAPH_FILE


def test_sha256_is_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_variant_is_found_by_name_or_as_the_first_of_its_provider(
    directory: Path, manifest: manifest_pb2.ModelManifest
) -> None:
    for name, provider in (("cuda-fp16", "cuda"), ("cpu-int8", "cpu")):
        manifest.variants.add(name=name, file=f"{name}.onnx", provider=provider)
    packages.write_manifest(directory, manifest)
    package = read_package(directory)
    assert package.variant().name == "cpu-fp32"
    assert package.variant("cpu-int8").name == "cpu-int8"
    assert package.variant(provider="cuda").name == "cuda-fp16"
    with pytest.raises(
        PackageInvalid, match="no variant 'cpu-fp16' in this package; it has cpu-fp32, cuda-fp16, cpu-int8"
    ):
        package.variant("cpu-fp16")
    with pytest.raises(PackageInvalid, match="no variant for the provider 'tpu'"):
        package.variant(provider="tpu")


def test_a_directory_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PackageInvalid, match=r"no manifest\.json there; make a package with `pairwire export"):
        read_package(tmp_path / "nowhere")


@pytest.mark.parametrize("text", [b"{", b'{"name": "demo", "invention": 1}', b"\xff\xfe", b""])
def test_a_manifest_that_cannot_be_read_is_refused(directory: Path, text: bytes) -> None:
    (directory / "manifest.json").write_bytes(text)
    with pytest.raises(PackageInvalid, match="not a manifest that this version reads"):
        read_package(directory)


def test_a_format_of_another_version_is_refused(directory: Path, manifest: manifest_pb2.ModelManifest) -> None:
    manifest.format = 2
    packages.write_manifest(directory, manifest)
    with pytest.raises(PackageInvalid, match="package format 2, this version reads 1"):
        read_package(directory)


def _set(**fields: object) -> Callable[[manifest_pb2.ModelManifest], None]:
    def change(manifest: manifest_pb2.ModelManifest) -> None:
        for name, value in fields.items():
            setattr(manifest, name, value)

    return change


def _set_ranges(manifest: manifest_pb2.ModelManifest) -> None:
    manifest.kind, manifest.dimensions = manifest_pb2.MODEL_KIND_BI_ENCODER, 3
    manifest.int8_low[:], manifest.int8_high[:] = [0, 0], [1, 1, 1]


def _escape(manifest: manifest_pb2.ModelManifest) -> None:
    manifest.variants[0].file = "../secrets.onnx"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(name=""), "name is empty"),
        (_set(kind=0), "kind 0 is unknown"),
        (_set(kind=manifest_pb2.MODEL_KIND_BI_ENCODER), "vectors without dimensions"),
        (_set_ranges, "int8 ranges of 2 and 3 numbers for 3 dimensions"),
        (_set(max_length=3), "max_length 3 leaves no room for a pair"),
        (lambda manifest: manifest.ClearField("labels"), "a cross-encoder without labels"),
        (lambda manifest: manifest.ClearField("variants"), "no variants"),
        (_escape, r"file '\.\./secrets\.onnx' is not a plain file name"),
    ],
)
def test_a_manifest_that_lacks_what_readers_rely_on_is_refused(
    directory: Path,
    manifest: manifest_pb2.ModelManifest,
    change: Callable[[manifest_pb2.ModelManifest], None],
    message: str,
) -> None:
    change(manifest)
    packages.write_manifest(directory, manifest)
    with pytest.raises(PackageInvalid, match=message):
        read_package(directory)


def test_a_changed_tokenizer_is_never_loaded(directory: Path) -> None:
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageInvalid, match=r"tokenizer\.json: sha256 is .*the file was changed or damaged"):
        read_package(directory)


def test_a_missing_file_is_named(directory: Path) -> None:
    package = read_package(directory)
    package.graph_file(package.variant()).unlink()
    with pytest.raises(PackageInvalid, match=r"cpu-fp32\.onnx: missing, but the manifest lists it"):
        package.graph_file(package.variant())


def test_a_file_of_weights_is_verified_with_its_graph(directory: Path, manifest: manifest_pb2.ModelManifest) -> None:
    (directory / "weights.data").write_bytes(b"abc")
    variant = manifest.variants[0]
    variant.data_file, variant.data_sha256 = "weights.data", sha256_of(directory / "weights.data")
    packages.write_manifest(directory, manifest)
    package = read_package(directory)
    assert package.graph_file(package.variant()) == directory / packages.GRAPH_FILE
    (directory / "weights.data").write_bytes(b"abd")
    with pytest.raises(PackageInvalid, match=r"weights\.data: sha256 is a52d159f262b"):
        package.graph_file(package.variant())
    (directory / "weights.data").unlink()
    with pytest.raises(PackageInvalid, match=r"weights\.data: missing, but the manifest lists it; copy the whole"):
        package.graph_file(package.variant())


@pytest.mark.parametrize("name", ["../weights.data", "/etc/weights.data", "a/b"])
def test_weights_outside_the_package_are_refused(
    name: str, directory: Path, manifest: manifest_pb2.ModelManifest
) -> None:
    manifest.variants[0].data_file = name
    packages.write_manifest(directory, manifest)
    with pytest.raises(PackageInvalid, match=r"data_file '.*' is not a plain file name"):
        read_package(directory)


@pytest.mark.parametrize("nested", [False, True])
def test_weights_that_the_manifest_does_not_name_are_not_read(
    directory: Path, manifest: manifest_pb2.ModelManifest, nested: bool
) -> None:
    path = directory / packages.GRAPH_FILE
    model = onnx.load(path)
    stranger = onnx.TensorProto(name="w", dims=[1], data_type=onnx.TensorProto.FLOAT)
    stranger.data_location = onnx.TensorProto.EXTERNAL
    stranger.external_data.add(key="location", value="elsewhere.bin")
    if nested:
        inner = onnx.helper.make_graph([], "inner", [], [], [stranger])
        model.graph.node.append(onnx.helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner))
    else:
        model.graph.initializer.append(stranger)
    path.write_bytes(model.SerializeToString())
    manifest.variants[0].sha256 = sha256_of(path)
    packages.write_manifest(directory, manifest)
    package = read_package(directory)
    with pytest.raises(PackageInvalid, match=r"reads 'elsewhere\.bin', which the manifest does not list"):
        package.graph_file(package.variant())
    manifest.variants[0].data_file = "elsewhere.bin"
    (directory / "elsewhere.bin").write_bytes(bytes(4))
    manifest.variants[0].data_sha256 = sha256_of(directory / "elsewhere.bin")
    packages.write_manifest(directory, manifest)
    package = read_package(directory)
    assert package.graph_file(package.variant()) == path


@pytest.mark.parametrize("content", [b"", b"\x0b\x00", b"\x3a\x05ab", b"\xff" * 20])
def test_what_is_no_graph_is_refused(directory: Path, manifest: manifest_pb2.ModelManifest, content: bytes) -> None:
    path = directory / packages.GRAPH_FILE
    path.write_bytes(content)
    manifest.variants[0].sha256 = sha256_of(path)
    packages.write_manifest(directory, manifest)
    package = read_package(directory)
    with pytest.raises(PackageInvalid, match="no ONNX graph"):
        package.graph_file(package.variant())


@pytest.mark.parametrize("field", ["max_length", "batch_tokens"])
def test_numbers_that_would_take_all_memory_are_refused(
    directory: Path, manifest: manifest_pb2.ModelManifest, field: str
) -> None:
    setattr(manifest if field == "max_length" else manifest.variants[0], field, (1 << 31) - 1)
    packages.write_manifest(directory, manifest)
    with pytest.raises(PackageInvalid, match=f"{field} 2147483647 is more than 1048576"):
        read_package(directory)
