"""A tokenizer that knows a token past the model's embeddings: whoever sends it is told so, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from pairwire.client import AsyncClient, Client, ClientOptions, FirstStage, InvalidInput, SplitLimits, TokenIds
from pairwire.server import errors
from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.engine.text.pair_template import PairTemplate, Slot
from pairwire.server.engine.text.vocabulary import embedding_rows
from pairwire.server.package import read_package, sha256_of
from tests.server import packages, serving
from tests.server.engine import toys

BAD = "the [DOC] sleeps"
GOOD = "a cat sleeps on the mat"


def _with_token(package: Path, directory: Path, *, told: bool = True) -> Path:
    """A copy of a package, with a token that its graph knows nothing of; not ``told``: as older exports left it."""
    shutil.copytree(package, directory)
    manifest = read_package(directory).manifest
    file = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    assert tokenizer.add_tokens(["[DOC]"]) == 1
    assert tokenizer.token_to_id("[DOC]") == manifest.vocab_size
    tokenizer.save(str(file))
    manifest.tokenizer_sha256 = sha256_of(file)
    if not told:
        manifest.vocab_size = 0
    packages.write_manifest(directory, manifest)
    return directory


@pytest.fixture
async def served(
    cross_encoder_package: Path, bi_encoder_package: Path, tmp_path: Path
) -> AsyncIterator[serving.Served]:
    both = [_with_token(package, tmp_path / package.name) for package in (cross_encoder_package, bi_encoder_package)]
    async with serving.serve(*both) as found:
        yield found


Call = Callable[[AsyncClient], Any]

CALLS: dict[str, tuple[Call, str]] = {
    "a second text": (lambda client: client.score([(GOOD, GOOD), (GOOD, BAD)]), "pairs[1].second"),
    "a first text": (lambda client: client.score([(BAD, GOOD)]), "pairs[0].first"),
    "a document": (lambda client: client.score_documents(GOOD, [GOOD, GOOD, BAD]), "documents[2]"),
    "a query": (lambda client: client.score_documents(BAD, [GOOD]), "query"),
    "a document to rank": (lambda client: client.rerank(GOOD, [GOOD, BAD]), "documents[1]"),
    "a query to rank for": (lambda client: client.rerank(BAD, [GOOD, GOOD]), "query"),
    "a prompt": (lambda client: client.score([(GOOD, GOOD)], prompt="[DOC]: "), "prompt"),
    "a text": (lambda client: client.embed([GOOD, BAD]), "texts[1]"),
    "a text's prompt": (lambda client: client.embed([GOOD], prompt="[DOC]"), "prompt"),
    "a first stage's document": (
        lambda client: client.rerank(GOOD, [GOOD, BAD, GOOD], first_stage=FirstStage(keep=1)),
        "documents[1]",
    ),
    "a first stage's query": (
        lambda client: client.rerank(BAD, [GOOD, GOOD], first_stage=FirstStage(keep=1)),
        "query",
    ),
    "a text that a thread tokenises": (
        lambda client: client.score_documents(GOOD, [f"{GOOD} {index} " * 9 for index in range(180)] + [BAD]),
        "documents[180]",
    ),
    "a text of a later request": (
        lambda client: client.score([(GOOD, GOOD)] * 500 + [(GOOD, BAD)]),
        "pairs[500].second",
    ),
}


@pytest.mark.parametrize("what", CALLS)
async def test_the_token_is_named_with_its_field(served: serving.Served, what: str) -> None:
    call, field = CALLS[what]
    async with AsyncClient(f"127.0.0.1:{served.application.port}") as client:
        with pytest.raises(InvalidInput, match=r"it has the token '\[DOC\]' \(id \d+\), .* below \d+; leave") as caught:
            await call(client)
    assert caught.value.field == field


async def test_streams_and_the_blocking_client_and_token_ids(served: serving.Served) -> None:
    address = f"127.0.0.1:{served.application.port}"

    def work() -> None:
        with Client(address, options=ClientOptions(split=SplitLimits(max_items=2))) as client:
            with pytest.raises(InvalidInput, match="DOC") as caught:
                list(client.score_stream([(GOOD, GOOD)] * 4 + [(GOOD, BAD)]))
            assert caught.value.field == "pairs[4].second"
            with pytest.raises(InvalidInput, match="DOC") as caught:
                list(client.embed_stream([GOOD, GOOD, GOOD, BAD]))
            assert caught.value.field == "texts[3]"
            with pytest.raises(InvalidInput, match="DOC"):
                client.cross_encoder().predict([(GOOD, BAD)])
            rows = client.model("tiny-cross-encoder").manifest.vocab_size
            with pytest.raises(InvalidInput, match=f"{rows} is outside the model's vocabulary") as caught:
                client.score([(TokenIds([1]), TokenIds([5, rows]))])
            assert caught.value.field == "pairs[0].second.ids[1]"

    await asyncio.to_thread(work)


async def test_nobody_else_notices(served: serving.Served) -> None:
    async with AsyncClient(f"127.0.0.1:{served.application.port}") as client:
        expected = (await client.score([(GOOD, GOOD)])).scores[0]
        bad = [client.score([(f"{GOOD} {index}", BAD)]) for index in range(20)]
        good = [client.score([(GOOD, GOOD), (GOOD, f"cats {index}")]) for index in range(40)]
        found = await asyncio.gather(*bad, *good, return_exceptions=True)
    assert all(isinstance(error, InvalidInput) for error in found[:20])
    assert [answer.scores[0] for answer in found[20:]] == pytest.approx([expected] * 40, abs=1e-6)  # type: ignore[union-attr]
    assert served.application.engine is not None
    assert all(model.healthy for model in served.application.engine.statistics().models.values())


async def test_what_is_cut_off_may_have_the_token(served: serving.Served) -> None:
    long = "the dog runs through the park " * 60
    async with AsyncClient(f"127.0.0.1:{served.application.port}") as client:
        answers = [(await client.score([(GOOD, text)])).scores for text in (long, f"{long} [DOC]")]
        assert answers[0] == pytest.approx(answers[1], abs=1e-6)
        with pytest.raises(InvalidInput, match="DOC"):
            await client.score([(GOOD, f"[DOC] {long}")])


async def test_a_package_that_does_not_say_how_many_is_asked(cross_encoder_package: Path, tmp_path: Path) -> None:
    directory = _with_token(cross_encoder_package, tmp_path / "old", told=False)
    rows = read_package(cross_encoder_package).manifest.vocab_size
    async with await Engine.open(directory, config=EngineConfig(warmup_s=0.01)) as engine:
        assert (await engine.score([(GOOD, GOOD)])).scores.shape == (1, 1)
        with pytest.raises(errors.InvalidInput, match=f"below {rows}; leave") as caught:
            await engine.score([(GOOD, BAD)])
        assert caught.value.field == "pairs[0].second"


async def test_a_package_that_could_serve_nothing_is_not_loaded(cross_encoder_package: Path, tmp_path: Path) -> None:
    directory = _with_token(cross_encoder_package, tmp_path / "broken")
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    rows = read_package(directory).manifest.vocab_size
    content["post_processor"]["special_tokens"]["[SEP]"] |= {"ids": [rows], "tokens": ["[DOC]"]}
    file.write_text(json.dumps(content))
    manifest = read_package(cross_encoder_package).manifest
    manifest.tokenizer_sha256 = sha256_of(file)
    packages.write_manifest(directory, manifest)
    with pytest.raises(errors.PackageInvalid, match=r"around a text has the token '\[DOC\]'"):
        await Engine.open(directory)


@pytest.mark.parametrize(
    ("first", "second", "prompt", "field"),
    [("[Q] a", "b", "", "query"), ("a", "b [Q]", "", "documents[3]"), ("a", "b", "[Q]", "prompt")],
)
def test_a_template_makes_one_text_and_its_parts_are_told_apart(
    first: str, second: str, prompt: str, field: str
) -> None:
    tokenizer = toys.wordpiece()
    rows = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["[Q]"])
    template = PairTemplate((Slot.PROMPT, "query ", Slot.FIRST, " document ", Slot.SECOND))
    encoder = TextEncoder(tokenizer, TextRules(max_length=64, vocab_size=rows, template=template))
    with pytest.raises(errors.InvalidInput, match=r"'\[Q\]'") as caught:
        encoder.encode_pairs([first], ["a", second], prompt=prompt, fields=("query", "documents[{}]"), start=2)
    assert caught.value.field == field


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 10])
def test_rows_are_found_by_asking(rows: int) -> None:
    asked: list[int] = []

    def run(id: int) -> None:
        asked.append(id)
        if id >= rows:
            raise IndexError(id)

    assert embedding_rows(run, 10) == rows
    assert len(asked) <= 5
