"""What a model's tokenizer makes of texts, and the way back; and single texts that a cross-encoder reads."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pairwire.server.engine import Activation, Engine, EngineConfig, ReadingOptions, ScoreOptions, TokenIds
from pairwire.server.errors import DeadlineExceeded, InvalidInput, ModelNotFound, NotReady, Overloaded, WrongModelKind
from pairwire.server.runtime.fake import FakeRuntime
from tests.server.engine import toys

TEXT = "bake Brot, 猫 é 😀 bread"


def engine(config: EngineConfig | None = None) -> Engine:
    embedder = toys.bi_encoder_manifest(prompts={"query": "query: "})
    return Engine([toys.toy_model(FakeRuntime(outputs=4), embedder)], config=config)


async def test_tokens_cover_the_text_that_they_stand_for() -> None:
    async with engine() as served:
        (bare,) = await served.tokenize([TEXT], add_special_tokens=False)
        (whole,) = await served.tokenize([TEXT])
    assert bare.ids == tuple(toys.wordpiece().encode(TEXT, add_special_tokens=False).ids)
    assert whole.ids == (2, *bare.ids, 3)
    assert whole.special == (True, *[False] * len(bare), True)
    assert (whole.covered(0), whole.covered(len(whole) - 1)) == ("[CLS]", "[SEP]")
    raw = TEXT.encode()
    for index, (begin, end) in enumerate(bare.byte_spans()):
        assert raw[begin:end].decode() == bare.covered(index)
    assert "".join(bare.covered(index) for index in range(len(bare))) == TEXT.replace(" ", "")


async def test_a_prompt_is_tokenised_with_the_text() -> None:
    async with engine() as served:
        (found,) = await served.tokenize(["fox"], options=ReadingOptions(prompt_name="query"))
        assert found.text == "query: fox"
        with pytest.raises(InvalidInput, match=r"^prompt_name: 'none' is unknown"):
            await served.tokenize(["fox"], options=ReadingOptions(prompt_name="none"))


async def test_ids_become_text_again() -> None:
    async with engine() as served:
        (found,) = await served.tokenize(["bake bread"])
        assert await served.decode([TokenIds(found.ids)]) == ["bake bread"]
        assert await served.decode([TokenIds(found.ids)], skip_special_tokens=False) == ["[CLS] bake bread [SEP]"]
        with pytest.raises(InvalidInput, match=r"^ids\[1\].ids\[0\]: 99999 is outside the model's vocabulary"):
            await served.decode([TokenIds([2]), TokenIds([99999])])


async def test_tokenising_is_bounded_as_every_call_is() -> None:
    async with engine(EngineConfig(queue_tokens=100)) as served:
        for empty in (served.tokenize([]), served.decode([])):
            with pytest.raises(InvalidInput, match="empty; give at least one"):
                await empty
        with pytest.raises(ModelNotFound, match="no model 'other' is loaded"):
            await served.tokenize(["a"], model="other")
        with pytest.raises(DeadlineExceeded):
            await served.tokenize(["a"], timeout_s=0)
        long = "bake bread " * 100
        found = await asyncio.gather(*(served.tokenize([long]) for _ in range(4)), return_exceptions=True)
        assert len([each for each in found if isinstance(each, Overloaded)]) == 3
        await served.drain()
        with pytest.raises(NotReady):
            await served.tokenize(["a"])


async def test_a_cross_encoder_reads_single_texts_as_a_classifier_does() -> None:
    manifest = toys.cross_encoder_manifest(labels=("no", "yes"))
    runtime = FakeRuntime(outputs=2)
    async with Engine([toys.toy_model(runtime, manifest)]) as served:
        result = await served.score_texts(
            ["the fox", "bake bread"], options=ScoreOptions(activation=Activation.SIGMOID)
        )
        assert result.labels == ("no", "yes")
        assert result.scores.shape == (2, 2)
        assert np.all((result.scores > 0) & (result.scores <= 1))
        assert result.usage.tokens == len(toys.wordpiece().encode("the fox")) + len(
            toys.wordpiece().encode("bake bread")
        )


async def test_a_model_with_a_template_reads_no_single_texts() -> None:
    from pairwire.v1 import manifest_pb2

    manifest = toys.cross_encoder_manifest()
    manifest.template.parts.add(slot=manifest_pb2.TEMPLATE_SLOT_FIRST)
    manifest.template.parts.add(slot=manifest_pb2.TEMPLATE_SLOT_SECOND)
    async with Engine([toys.toy_model(FakeRuntime(), manifest)]) as served:
        with pytest.raises(WrongModelKind, match="reads no single texts; send pairs"):
            await served.score_texts(["a"])
