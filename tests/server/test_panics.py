"""Whatever is raised, every call ends with one answer: also what is no Exception, such as a panic of Rust code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from pairwire.server.engine import Engine, EngineConfig, RequestEvent
from pairwire.server.errors import EngineFault, PackageInvalid
from pairwire.server.package import TOKENIZER_FILE, sha256_of
from pairwire.v1 import scoring_pb2
from tests.server import packages, serving
from tests.server.engine import toys
from tests.server.test_app import rerank

SKULL = "\N{SKULL AND CROSSBONES}"
LONG = 600
"""Characters: more than are tokenised on the event loop."""

NO_EXCEPTIONS = [
    SystemExit("now"),
    KeyboardInterrupt(),
    MemoryError(),
    RecursionError(),
    GeneratorExit(),
    StopIteration(),
]


@pytest.fixture(scope="module")
def panicking_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer panics on a text with a skull, and drops all others."""
    return with_tokenizer(
        tmp_path_factory.mktemp("panicking") / "package",
        normalizer={"type": "Replace", "pattern": {"Regex": f"[^{SKULL}]+"}, "content": ""},
        pre_tokenizer={"type": "FixedLength", "length": 0},
    )


def with_tokenizer(directory: Path, **changes: object) -> Path:
    """A package whose tokenizer is another in these parts."""
    manifest = toys.cross_encoder_manifest()
    packages.save_package(directory, manifest, toys.wordpiece())
    path = directory / TOKENIZER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    manifest.tokenizer_sha256 = sha256_of(path)
    packages.write_manifest(directory, manifest)
    return directory


@pytest.mark.parametrize("characters", [1, LONG])
async def test_a_tokenizer_that_panics_is_answered(characters: int, panicking_package: Path) -> None:
    request = scoring_pb2.RerankRequest(query="the", documents=["a", SKULL + "a" * characters])
    async with serving.serve(panicking_package) as served, asyncio.timeout(30):
        for _ in range(3):
            call = served.scoring.Rerank(request)
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert "PanicException" in await call.details()
            assert (await served.scoring.Rerank(rerank())).results
        assert served.application.engine.statistics().open_requests == 0


async def test_a_tokenizer_that_panics_is_an_ordinary_error_of_the_engine(panicking_package: Path) -> None:
    async with await Engine.open(panicking_package, config=serving.ENGINE) as engine:
        with pytest.raises(EngineFault, match="PanicException"):
            await engine.score([("the", SKULL)])


async def test_a_tokenizer_that_panics_when_it_is_read_is_a_package_that_is_refused(tmp_path: Path) -> None:
    package = with_tokenizer(tmp_path / "package", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(PackageInvalid, match="cannot be loaded and run"):
        await Engine.open(package, config=serving.ENGINE)


def raising(error: BaseException) -> Callable[..., None]:
    def act(*args: object, **kwargs: object) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "characters"),
    [
        pytest.param(error, characters, id=f"{type(error).__name__}-{characters}")
        for error in NO_EXCEPTIONS
        for characters in (1, LONG)
        if characters > 1 or not isinstance(error, KeyboardInterrupt)  # on the main thread that is Ctrl-C, and gets out
    ],
)
async def test_whatever_the_text_stage_raises_is_answered(
    error: BaseException, characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving.serve(models=lambda: [toys.toy_model()]) as served, asyncio.timeout(30):
        with monkeypatch.context() as patch:
            patch.setattr("pairwire.server.engine.text.encoder.TextEncoder.encode_pairs", raising(error))
            call = served.scoring.Rerank(scoring_pb2.RerankRequest(query="the", documents=["a" * characters]))
            assert await call.code() is grpc.StatusCode.INTERNAL
        assert (await served.scoring.Rerank(rerank())).results


@pytest.mark.parametrize("error", NO_EXCEPTIONS, ids=lambda error: type(error).__name__)
async def test_whatever_an_observer_raises_hurts_nobody(error: BaseException) -> None:
    class Crashing:
        def batch_finished(self, event: object) -> None:
            raise error

        def request_finished(self, event: RequestEvent) -> None:
            raise error

        def model_health(self, model: str, healthy: bool) -> None:
            raise error

    async with Engine([toys.toy_model()], config=EngineConfig(workers=1), observer=Crashing()) as engine:
        for _ in range(2):
            assert (await engine.score([("the", "dog")])).scores.shape == (1, 1)
        assert not engine.statistics().failed


@pytest.mark.parametrize(
    "error",
    [error for error in NO_EXCEPTIONS if not isinstance(error, KeyboardInterrupt)],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_encoding_an_answer_raises_is_answered(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving.serve(models=lambda: [toys.toy_model()]) as served, asyncio.timeout(30):
        with monkeypatch.context() as patch:
            patch.setattr("pairwire.server.rpc.codec.encode_ranking", raising(error))
            assert await served.scoring.Rerank(rerank()).code() is grpc.StatusCode.INTERNAL
        assert (await served.scoring.Rerank(rerank())).results
