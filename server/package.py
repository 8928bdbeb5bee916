"""A model package: a directory that `pairwire export` wrote. Nothing is loaded before its sha256 is checked.

Its graphs never change. Its manifest does where `pairwire tune` writes down what it chose.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from pairwire.v1 import manifest_pb2

from .errors import ConfigInvalid, PackageInvalid
from .onnx_files import NotOnnx, external_files
from .reasons import is_utf8, reason_of

FORMAT = 1
"""The package format that this version reads and writes."""

LFS_POINTER = b"version https://git-lfs"
"""What a file begins with that git-lfs has not fetched."""

MOST_TOKENS = 1 << 20
"""Longest row, largest batch and widest vector of any package: memory for tables of them is taken when it is opened."""

MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Package:
    """A model package whose manifest has been read and whose tokenizer has been verified."""

    directory: Path
    manifest: manifest_pb2.ModelManifest

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        return self.manifest.name

    @property
    def tokenizer_file(self) -> Path:
        """The fast tokenizer."""
        return self.directory / TOKENIZER_FILE

    def variant(self, name: str = "", *, provider: str = "cpu") -> manifest_pb2.Variant:
        """The variant of that name, or else the first (best) one for the provider.

        Raises:
            PackageInvalid: there is none; the sentence lists what there is.
        """
        for variant in self.manifest.variants:
            if variant.name == name or (not name and variant.provider == provider):
                return variant
        known = ", ".join(variant.name for variant in self.manifest.variants)
        wanted = f"variant {name!r}" if name else f"variant for the provider {provider!r}"
        raise PackageInvalid(f"{self.directory}: no {wanted} in this package; it has {known}")

    def file(self, name: str, sha256: str) -> Path:
        """A verified file of the package.

        Raises:
            PackageInvalid: it is missing, or its sha256 is another one.
        """
        return _verified(self.directory / name, sha256)

    def graph_file(self, variant: manifest_pb2.Variant) -> Path:
        """The verified file of a variant; that of its weights, where there is one, lies next to it and is verified too.

        Raises:
            PackageInvalid: a file is missing or its sha256 is not the manifest's.
        """
        if variant.data_file:
            _verified(self.directory / variant.data_file, variant.data_sha256)
        graph = _verified(self.directory / variant.file, variant.sha256)
        try:
            strangers = external_files(graph) - ({variant.data_file} if variant.data_file else set())
        except NotOnnx as error:
            raise PackageInvalid(
                f"{graph}: cannot be loaded and run (no ONNX graph: {error}); export the model again"
            ) from error
        except OSError as error:
            raise _unreadable(graph, error) from error
        if strangers:
            raise PackageInvalid(
                f"{graph}: reads {', '.join(map(repr, sorted(strangers)))}, which the manifest does not list, "
                "so that nobody vouches for it; export the model again"
            )
        return graph


def write_manifest(manifest: manifest_pb2.ModelManifest, directory: Path) -> None:
    """Writes manifest.json. A reader finds the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written there; the old one is untouched.
    """
    path = directory / MANIFEST_FILE
    text = json_format.MessageToJson(manifest, indent=2, ensure_ascii=False) + "\n"
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=f".{MANIFEST_FILE}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        written.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def check_writable(directory: Path) -> None:
    """Says before any work whether a manifest can be written there.

    Raises:
        ConfigInvalid: it cannot; the sentence says why.
    """
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigInvalid(
            f"{directory}: the manifest cannot be written there ({error.strerror}); --dry-run measures without writing"
        ) from error


def replace_manifest(package: Package, manifest: manifest_pb2.ModelManifest) -> None:
    """Gives a package another manifest.

    Raises:
        PackageInvalid: the one on disk is not the one that was read: somebody else has written it since.
        ConfigInvalid: it cannot be written.
    """
    if read_package(package.directory).manifest != package.manifest:
        raise PackageInvalid(
            f"{package.directory}: another process has changed the package meanwhile; nothing was written, try again"
        )
    try:
        write_manifest(manifest, package.directory)
    except OSError as error:
        raise ConfigInvalid(f"{package.directory}: the manifest cannot be written ({error.strerror})") from error


def read_package(directory: Path | str) -> Package:
    """Reads the manifest and verifies the tokenizer.

    Raises:
        PackageInvalid: no package there, a format of another version, or a file that differs from the manifest.
    """
    directory = Path(directory)
    if not is_utf8(directory):
        raise PackageInvalid(
            f"{directory}: not UTF-8, as tokenizers and ONNX Runtime need of a path; rename the directory"
        )
    path = directory / MANIFEST_FILE
    if not _is_file(path):
        raise PackageInvalid(
            f"{directory}: no {MANIFEST_FILE} there; make a package with `pairwire export CHECKPOINT -o DIR`"
        )
    try:
        content = path.read_bytes()
        if content.startswith(LFS_POINTER):
            raise PackageInvalid(f"{path}: a git-lfs pointer in place of the file; run `git lfs pull` there")
        manifest = json_format.Parse(content.decode("utf-8"), manifest_pb2.ModelManifest())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        # An unknown field means a newer writer: json_format names the field, the format number would not help more.
        raise PackageInvalid(
            f"{path}: not a manifest that this version reads ({reason_of(error)}); export the model again"
        ) from error
    if manifest.format != FORMAT:
        raise PackageInvalid(
            f"{path}: package format {manifest.format}, this version reads {FORMAT}; export the model again"
        )
    _check(path, manifest)
    _verified(directory / TOKENIZER_FILE, manifest.tokenizer_sha256)
    return Package(directory=directory, manifest=manifest)


def _check(path: Path, manifest: manifest_pb2.ModelManifest) -> None:
    """What a reader relies on without looking again."""
    problems = []
    if not manifest.name:
        problems.append("name is empty")
    if manifest.kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER:
        if not manifest.labels:
            problems.append("a cross-encoder without labels")
    elif manifest.kind in (manifest_pb2.MODEL_KIND_BI_ENCODER, manifest_pb2.MODEL_KIND_SPARSE_ENCODER):
        if not manifest.dimensions:
            problems.append("vectors without dimensions")
        ranges = {len(manifest.int8_low), len(manifest.int8_high)}
        if ranges not in ({0}, {manifest.dimensions}):
            problems.append(
                f"int8 ranges of {len(manifest.int8_low)} and {len(manifest.int8_high)} numbers for "
                f"{manifest.dimensions} dimensions"
            )
    else:
        problems.append(f"kind {manifest.kind} is unknown")
    for what, value, most in (
        ("max_length", manifest.max_length, MOST_TOKENS),
        ("dimensions", manifest.dimensions, MOST_TOKENS),
        *((f"variant {each.name!r}: batch_tokens", each.batch_tokens, MOST_TOKENS) for each in manifest.variants),
    ):
        if value > most:
            problems.append(f"{what} {value} is more than {most}")
    if manifest.max_length < 4:
        problems.append(f"max_length {manifest.max_length} leaves no room for a pair")
    if not manifest.variants:
        problems.append("no variants")
    for variant in manifest.variants:
        if not variant.file or Path(variant.file).name != variant.file:
            problems.append(f"variant {variant.name!r}: file {variant.file!r} is not a plain file name")
        if Path(variant.data_file).name != variant.data_file:
            problems.append(f"variant {variant.name!r}: data_file {variant.data_file!r} is not a plain file name")
    if manifest.HasField("query_table"):
        table = manifest.query_table
        if manifest.kind != manifest_pb2.MODEL_KIND_SPARSE_ENCODER:
            problems.append("a table for queries, which only a sparse encoder has")
        if not 1 <= table.max_length <= MOST_TOKENS:
            problems.append(f"query_table: max_length {table.max_length} is not between 1 and {MOST_TOKENS}")
        for name in (table.file, table.tokenizer_file):
            if not name or Path(name).name != name:
                problems.append(f"query_table: file {name!r} is not a plain file name")
    if problems:
        raise PackageInvalid(f"{path}: {'; '.join(problems)}; export the model again")


def _verified(path: Path, sha256: str) -> Path:
    if not _is_file(path):
        raise PackageInvalid(f"{path}: missing, but the manifest lists it; copy the whole package again")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found != sha256:
        raise PackageInvalid(
            f"{path}: sha256 is {found[:12]}..., the manifest says {sha256[:12] or 'nothing'}...; {_remedy(path)}"
        )
    return path


def _is_file(path: Path) -> bool:
    """Raises PackageInvalid where it cannot be known, or where a link leads out of the package."""
    try:
        inside = path.resolve().is_relative_to(path.parent.resolve())
        found = path.is_file()
    except OSError as error:  # a directory on the way may not be entered, or a name is too long
        raise _unreadable(path, error) from error
    except RuntimeError:  # links in a circle
        return False
    if not inside:
        raise PackageInvalid(
            f"{path}: a link that leads out of the package; copy the package with its files, e.g. with cp -rL"
        )
    return found


def _unreadable(path: Path, error: OSError) -> PackageInvalid:
    return PackageInvalid(
        f"{path}: cannot be read ({error.strerror or error}); give this user the right to, or copy the package again"
    )


def _remedy(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            return "it is a git-lfs pointer in place of the file, run `git lfs pull` there"
    return "the file was changed or damaged, copy or export the package again"
