"""Whatever a package or a message holds, it is read or refused with a sentence; nothing else gets out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pairwire.foreign import kserve_pb2, tei_pb2
from pairwire.server.compat.kserve_inference import Inference, infer
from pairwire.server.compat.kserve_parameters import Parameters
from pairwire.server.compat.kserve_wire import parameters_of, read_large, tensors_of, wanted_of
from pairwire.server.config import RequestLimits
from pairwire.server.engine import Engine, EngineConfig, load_model
from pairwire.server.errors import PairwireError, StartupError
from pairwire.server.onnx_files import NotOnnx, external_files
from pairwire.server.package import MANIFEST_FILE, TOKENIZER_FILE, read_package, sha256_of
from pairwire.server.rpc.inflate import is_compressed
from pairwire.server.rpc.wire import Unread, Unreadable, read_in_pieces, reader
from pairwire.v1 import embedding_pb2, manifest_pb2, model_pb2, scoring_pb2
from tests.server import packages
from tests.server.compat.foreign import request, texts
from tests.server.engine import toys

QUICK = EngineConfig(warmup_s=0.01, workers=1, cache_dir="none")
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example opens a package."""

REQUESTS = [
    scoring_pb2.ScoreRequest,
    scoring_pb2.RerankRequest,
    scoring_pb2.ClassifyRequest,
    embedding_pb2.EmbedRequest,
    embedding_pb2.EmbedSparseRequest,
    model_pb2.ListModelsRequest,
    model_pb2.GetModelRequest,
    kserve_pb2.ModelInferRequest,
    tei_pb2.RerankRequest,
    tei_pb2.RerankStreamRequest,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)


def paths_of(value: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place in a JSON value, but not each entry of a vocabulary."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, each in list(inside)[:20] for path in paths_of(each, (*here, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: object) -> Any:
    """The JSON value with another at one place."""
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.save_package(
        tmp_path_factory.mktemp("fuzzed") / "package", toys.cross_encoder_manifest(), toys.wordpiece()
    )


def open_and_close(directory: Path) -> None:
    with contextlib.suppress(StartupError):
        load_model(directory, QUICK).runtime.close()


@FEW
@given(data=st.data())
def test_a_manifest_that_was_changed_anywhere_is_read_or_refused(package: Path, data: st.DataObject) -> None:
    path = package / MANIFEST_FILE
    before = path.read_text()
    manifest = json.loads(before)
    at = data.draw(st.sampled_from(paths_of(manifest)))
    try:
        path.write_text(json.dumps(replaced(manifest, at, data.draw(json_values))))
        open_and_close(package)
    finally:
        path.write_text(before)


@FEW
@given(data=st.data())
def test_a_tokenizer_that_was_changed_anywhere_is_read_or_refused(package: Path, data: st.DataObject) -> None:
    path, manifest_path = package / TOKENIZER_FILE, package / MANIFEST_FILE
    before, manifest_before = path.read_text(), manifest_path.read_text()
    tokenizer = json.loads(before)
    at = data.draw(st.sampled_from(paths_of(tokenizer)))
    try:
        path.write_text(json.dumps(replaced(tokenizer, at, data.draw(json_values))))
        manifest = json_format.Parse(manifest_before, manifest_pb2.ModelManifest())
        manifest.tokenizer_sha256 = sha256_of(path)
        packages.write_manifest(package, manifest)
        open_and_close(package)
    finally:
        path.write_text(before)
        manifest_path.write_text(manifest_before)


@given(data=st.data())
def test_a_graph_that_was_changed_anywhere_is_looked_through_or_refused(package: Path, data: st.DataObject) -> None:
    whole = (package / packages.GRAPH_FILE).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=6)) + whole[at + data.draw(st.integers(0, 6)) :]
    path = package / "changed.onnx"
    path.write_bytes(changed)
    with contextlib.suppress(NotOnnx):
        assert external_files(path) is not None


@FEW
@given(data=st.data())
def test_a_graph_that_was_changed_anywhere_is_loaded_or_refused(package: Path, data: st.DataObject) -> None:
    path, manifest_path = package / packages.GRAPH_FILE, package / MANIFEST_FILE
    whole, manifest_before = path.read_bytes(), manifest_path.read_text()
    at = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:at] + data.draw(st.binary(max_size=6)) + whole[at + data.draw(st.integers(0, 6)) :])
        manifest = json_format.Parse(manifest_before, manifest_pb2.ModelManifest())
        for variant in manifest.variants:
            variant.sha256 = sha256_of(path)
        packages.write_manifest(package, manifest)
        open_and_close(package)
    finally:
        path.write_bytes(whole)
        manifest_path.write_text(manifest_before)


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
@given(raw=st.binary(max_size=200))
def test_bytes_are_a_request_or_say_why_they_are_none(request_type: type[Message], raw: bytes) -> None:
    limits = RequestLimits()
    found = reader(request_type, limits)(raw)
    assert isinstance(found, request_type | Unreadable)
    assert not isinstance(found, Unread)
    if not is_compressed(raw):
        assert type(read_in_pieces(request_type, raw, limits)) is type(found)


@given(
    head=st.sampled_from([b"\x1f\x8b", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", b"\x78\x9c", b"\x78\x01"]),
    rest=st.binary(),
)
def test_what_begins_as_compressed_does_is_a_request_or_says_why_it_is_none(head: bytes, rest: bytes) -> None:
    found = reader(tei_pb2.RerankRequest, RequestLimits())(head + rest)
    assert isinstance(found, tei_pb2.RerankRequest | Unreadable)


INFER = request(
    "toy", texts("query", ["a"]), texts("documents", ["b", "c"]), outputs=["score"], parameters={"top_k": 1}
).SerializeToString()


@given(data=st.data())
async def test_a_kserve_request_that_was_changed_anywhere_is_served_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(INFER) - 1))
    raw = INFER[:at] + data.draw(st.binary(max_size=6)) + INFER[at + data.draw(st.integers(0, 6)) :]
    limits = RequestLimits()
    for found in (
        reader(kserve_pb2.ModelInferRequest, limits)(raw),
        read_large(kserve_pb2.ModelInferRequest, raw, limits),
    ):
        if isinstance(found, kserve_pb2.ModelInferRequest):
            with contextlib.suppress(PairwireError):
                tensors, parameters = tensors_of(found, limits), Parameters(parameters_of(found.parameters))
                wanted = wanted_of(found)
                async with Engine([toys.toy_model()]) as engine:
                    inference = Inference(engine.find(""), tensors, wanted, parameters)
                    assert len(await infer(engine, inference, limits, None)) == (len(wanted) or 3)


def test_a_package_that_nobody_changed_is_read(package: Path) -> None:
    read_package(package)
    load_model(package, QUICK).runtime.close()
