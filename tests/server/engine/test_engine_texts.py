"""What the engine reads: prompts by name or literal, token ids, templates, and what is told of rows that were cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pairwire.server.engine import (
    EmbedOptions,
    Engine,
    EngineConfig,
    ScoreOptions,
    SparseOptions,
    TokenIds,
    Truncation,
)
from pairwire.server.errors import InvalidInput
from pairwire.server.runtime.base import Float32Array, TokenBatch
from pairwire.server.runtime.fake import FakeRuntime, row_sums
from pairwire.v1 import manifest_pb2
from tests.server.engine import toys

PROMPTS = {"query": "find: ", "none": ""}
DOCUMENTS = ["the lazy dog", "bread", "the park"]


def _pair_sums(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """What the fake runtime gives for pairs."""
    tokenizer = toys.wordpiece()
    return [float(sum(tokenizer.encode(first, second).ids)) for first, second in pairs]


def _ids(text: str) -> TokenIds:
    return TokenIds(toys.wordpiece().encode(text, add_special_tokens=False).ids)


def _prompted(default: str = "") -> manifest_pb2.ModelManifest:
    manifest = toys.cross_encoder_manifest()
    manifest.prompts.update(PROMPTS)
    manifest.default_prompt_name = default
    return manifest


def _sparse() -> manifest_pb2.ModelManifest:
    manifest = toys.bi_encoder_manifest("toy-sparse", prompts=PROMPTS)
    manifest.kind = manifest_pb2.MODEL_KIND_SPARSE_ENCODER
    return manifest


@pytest.mark.parametrize(
    ("default", "options", "prompt"),
    [
        ("", ScoreOptions(), ""),
        ("", ScoreOptions(prompt_name="query"), "find: "),
        ("", ScoreOptions(prompt="judge the "), "judge the "),
        ("query", ScoreOptions(), "find: "),
        ("query", ScoreOptions(prompt=""), ""),
        ("query", ScoreOptions(prompt="judge the "), "judge the "),
        ("query", ScoreOptions(prompt_name="none"), ""),
    ],
)
async def test_a_prompt_stands_before_the_first_text_of_every_pair(
    default: str, options: ScoreOptions, prompt: str
) -> None:
    expected = _pair_sums([(prompt + "the fox", document) for document in DOCUMENTS])
    async with Engine([toys.toy_model(manifest=_prompted(default))]) as engine:
        ranked = await engine.score_documents("the fox", DOCUMENTS, options=options)
        pairs = await engine.score([("the fox", document) for document in DOCUMENTS], options=options)
    assert ranked.scores[:, 0].tolist() == pairs.scores[:, 0].tolist() == expected


async def test_a_prompt_and_its_query_are_tokenised_once() -> None:
    async with Engine([toys.toy_model(manifest=_prompted())]) as engine:
        await engine.score_documents("the fox", DOCUMENTS, options=ScoreOptions(prompt_name="query"))
        cache = engine.statistics().models["toy"].token_cache
    assert (cache.hits, cache.misses) == (0, 1 + len(DOCUMENTS))


async def test_prompts_in_so_many_words_stand_before_texts_to_embed() -> None:
    tokenizer = toys.wordpiece()
    expected = [float(sum(tokenizer.encode("to find the fox").ids))]
    dense = toys.bi_encoder_manifest(dimensions=1, prompts=PROMPTS, default_prompt_name="query")
    async with Engine([toys.toy_model(manifest=dense), toys.toy_model(manifest=_sparse())]) as engine:
        vectors = await engine.embed(["the fox"], options=EmbedOptions(prompt="to find "))
        sparse = await engine.embed_sparse(["the fox"], options=SparseOptions(prompt="to find "))
        bare = await engine.embed(["to find the fox"], options=EmbedOptions(prompt=""))
    assert vectors.embeddings[0].tolist() == bare.embeddings[0].tolist() == expected
    assert sparse.values.tolist() == expected * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ScoreOptions(prompt_name="passage"), "^prompt_name: 'passage' is unknown; model 'toy' has 'none', 'query'$"),
        (
            ScoreOptions(prompt_name="query", prompt="find: "),
            "^prompt: given together with the prompt_name 'query'; give one",
        ),
        (
            ScoreOptions(prompt_name="query", prompt=""),
            "^prompt: given together with the prompt_name 'query'; give one",
        ),
        (ScoreOptions(prompt="\ud800"), "^prompt: not valid Unicode: a lone surrogate at character 0"),
    ],
)
async def test_a_prompt_that_cannot_be_is_refused(options: ScoreOptions, message: str) -> None:
    async with Engine([toys.toy_model(manifest=_prompted())]) as engine:
        with pytest.raises(InvalidInput, match=message):
            await engine.score_documents("the fox", DOCUMENTS, options=options)


async def test_token_ids_stand_for_the_texts_that_they_were_made_of() -> None:
    dense = toys.bi_encoder_manifest(dimensions=1)
    async with Engine([toys.toy_model(), toys.toy_model(manifest=dense), toys.toy_model(manifest=_sparse())]) as engine:
        pairs = await engine.score([(_ids("the fox"), _ids("the dog " * 60)), ("the fox", _ids("bread"))])
        texts = await engine.score([("the fox", "the dog " * 60), ("the fox", "bread")])
        documents = await engine.score_documents(_ids("the fox"), [_ids(each) for each in DOCUMENTS])
        vectors = await engine.embed([_ids("the fox"), "the fox", _ids("")])
        sparse = await engine.embed_sparse([_ids("the fox")])
    assert pairs.scores.tolist() == texts.scores.tolist()
    assert pairs.usage.truncated_inputs == texts.usage.truncated_inputs == (0,)
    assert pairs.usage.tokens == texts.usage.tokens
    assert documents.scores[:, 0].tolist() == _pair_sums([("the fox", each) for each in DOCUMENTS])
    tokenizer = toys.wordpiece()
    assert vectors.embeddings[:, 0].tolist() == [sum(tokenizer.encode(each).ids) for each in ("the fox",) * 2 + ("",)]
    assert sparse.values.tolist() == [sum(tokenizer.encode("the fox").ids)] * 4


async def test_many_token_ids_are_checked_before_any_of_them_is_computed() -> None:
    runtime = FakeRuntime()
    async with Engine([toys.toy_model(runtime)]) as engine:
        documents = [_ids("the fox jumps over the lazy dog")] * 1000 + [TokenIds([1, 100_000])]
        with pytest.raises(
            InvalidInput, match=r"^documents\[1000\]\.ids\[1\]: 100000 is outside the model's vocabulary"
        ):
            await engine.score_documents(_ids("the fox"), documents)
    assert not runtime.batches


async def test_ids_are_bounded_by_the_package_or_else_by_the_tokenizer() -> None:
    manifest = toys.cross_encoder_manifest()
    size = toys.wordpiece().get_vocab_size(with_added_tokens=True)
    for bound, vocab_size in ((size, 0), (size + 8, size + 8)):
        manifest.vocab_size = vocab_size
        async with Engine([toys.toy_model(manifest=manifest)]) as engine:
            await engine.score([(TokenIds([bound - 1]), "the")])
            with pytest.raises(
                InvalidInput, match=rf"^pairs\[1\]\.second\.ids\[2\]: {bound} is .*; ids are below {bound}$"
            ):
                await engine.score([("a", "b"), ("the", TokenIds([0, 1, bound]))])


@pytest.mark.parametrize("options", [ScoreOptions(), ScoreOptions(prompt="p"), ScoreOptions(prompt_name="query")])
async def test_token_ids_have_no_prompt(options: ScoreOptions) -> None:
    async with Engine([toys.toy_model(manifest=_prompted("query"))]) as engine:
        with pytest.raises(InvalidInput, match=r"^query: token ids are no text, and a prompt is tokenised with"):
            await engine.score_documents(_ids("the fox"), ["bread"], options=options)
        await engine.score_documents(_ids("the fox"), ["bread"], options=ScoreOptions(prompt=""))


async def test_texts_to_embed_have_no_prompt_either_where_they_are_token_ids() -> None:
    manifest = toys.bi_encoder_manifest(prompts=PROMPTS, default_prompt_name="query")
    async with Engine([toys.toy_model(manifest=manifest)]) as engine:
        with pytest.raises(InvalidInput, match=r"^texts\[1\]: token ids are no text, and a prompt is tokenised with"):
            await engine.embed(["the fox", _ids("bread")])


def _rendering() -> manifest_pb2.ModelManifest:
    manifest = _prompted()
    add = manifest.template.parts.add
    for part in ("judge ", manifest_pb2.TEMPLATE_SLOT_PROMPT, ": "):
        add(literal=part) if isinstance(part, str) else add(slot=part)
    add(slot=manifest_pb2.TEMPLATE_SLOT_FIRST)
    add(literal=" and ")
    add(slot=manifest_pb2.TEMPLATE_SLOT_SECOND)
    add(literal=" fits")
    manifest.template.default_prompt = "taste"
    manifest.template.suffix_ids.extend(toys.wordpiece().encode("fits", add_special_tokens=False).ids)
    return manifest


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        (ScoreOptions(), "taste"),
        (ScoreOptions(prompt=""), "taste"),
        (ScoreOptions(prompt="the bread"), "the bread"),
        (ScoreOptions(prompt_name="query"), "find: "),
    ],
)
async def test_a_template_makes_one_text_of_a_pair_and_takes_the_prompt(options: ScoreOptions, prompt: str) -> None:
    tokenizer = toys.wordpiece()
    documents = [*DOCUMENTS, "the dog " * 60] * 40
    async with Engine([toys.toy_model(manifest=_rendering())]) as engine:
        result = await engine.score_documents("the fox", documents, options=options)
        assert engine.statistics().models["toy"].token_cache.entries == 0
    rendered = [f"judge {prompt}: the fox and {document} fits" for document in DOCUMENTS]
    expected = [float(sum(tokenizer.encode(text, add_special_tokens=False).ids)) for text in rendered]
    assert result.scores.reshape(40, 4)[:, :3].tolist() == [expected] * 40
    assert result.usage.truncated_inputs == tuple(range(3, 160, 4))


@pytest.mark.parametrize("truncation", Truncation)
async def test_every_policy_tells_what_it_cut(truncation: Truncation) -> None:
    options = ScoreOptions(truncation=truncation, max_length=12)
    long = "the dog " * 20
    fitting = [("the fox", "bread"), ("", ""), ("the fox", "the dog")]
    async with Engine([toys.toy_model()]) as engine:
        if truncation is Truncation.ERROR:
            assert (await engine.score(fitting, options=options)).usage.truncated_inputs == ()
            with pytest.raises(InvalidInput, match=r"^pairs\[3\]\.second: 45 tokens .* exceed max_length 12; shorten"):
                await engine.score([*fitting, ("the fox", long)], options=options)
            return
        if truncation is Truncation.ONLY_FIRST:
            result = await engine.score([(long, "the fox"), *fitting, (long, "")], options=options)
            assert result.usage.truncated_inputs == (0, 4)
            with pytest.raises(InvalidInput, match=r"^pairs\[1\]\.second: 43 tokens .* exceed max_length 12; shorten"):
                await engine.score([(long, "the fox"), ("", long)], options=options)
            return
        result = await engine.score([("the fox", long), *fitting, ("", long)], options=options)
        assert result.usage.truncated_inputs == (0, 4)
        ranked = await engine.score_documents("the fox", ["bread", long, "", long], options=options)
        assert ranked.usage.truncated_inputs == (1, 3)
        if truncation is Truncation.ONLY_SECOND:
            with pytest.raises(InvalidInput, match=r"^pairs\[1\]\.first: 43 tokens .* exceed max_length 12; shorten"):
                await engine.score([("the fox", long), (long, "")], options=options)
            with pytest.raises(InvalidInput, match=r"^query: 43 tokens .* exceed max_length 12"):
                await engine.score_documents(long, ["", "bread"], options=options)


async def test_the_smallest_limit_leaves_room_for_one_token() -> None:
    async with Engine([toys.toy_model(), toys.toy_model(manifest=toys.bi_encoder_manifest())]) as engine:
        scored = await engine.score([("the", ""), ("the", "fox")], options=ScoreOptions(max_length=4))
        assert (scored.usage.tokens, scored.usage.truncated_inputs) == (8, (1,))
        for limit, least in ((3, 4), (1, 4)):
            with pytest.raises(InvalidInput, match=f"^max_length: {limit} leaves no room for text; at least {least}$"):
                await engine.score([("the", "")], options=ScoreOptions(max_length=limit))
        with pytest.raises(InvalidInput, match=r"^max_length: 2 leaves no room for text; at least 3$"):
            await engine.embed(["the"], options=EmbedOptions(max_length=2))
        with pytest.raises(InvalidInput, match=r"^max_length: 65 is more than this model reads; at most 64$"):
            await engine.embed(["the"], options=EmbedOptions(max_length=65))


def _after_prompts(batch: TokenBatch) -> Float32Array:
    """A pooling that leaves prompts out: sums of the token ids behind them."""
    at = np.arange(batch.length, dtype=np.int32)
    behind = np.where(at < batch.prompt_lengths[:, None], 0, batch.input_ids)
    return row_sums(TokenBatch(behind, batch.token_type_ids, batch.lengths))


@pytest.mark.parametrize("score_cache_bytes", [0, 1 << 20])
async def test_equal_rows_with_unlike_prompts_are_pooled_apart(score_cache_bytes: int) -> None:
    manifest = toys.bi_encoder_manifest(dimensions=1, prompts={"short": "the ", "long": "the fox "})
    manifest.prompt_excluded = True
    config = EngineConfig(score_cache_bytes=score_cache_bytes)
    tokenizer = toys.wordpiece()
    ids = tokenizer.encode("the fox jumps").ids
    shares = {"the ": ids[2:], "the fox ": ids[len(tokenizer.encode("the fox").ids) - 1 :], "": ids}
    async with Engine([toys.toy_model(FakeRuntime(_after_prompts), manifest)], config=config) as engine:
        for _ in range(2):
            for prompt, behind in shares.items():
                text = "the fox jumps"[len(prompt) :]
                result = await engine.embed([text, text], options=EmbedOptions(prompt=prompt))
                assert result.embeddings.tolist() == [[float(sum(behind))]] * 2
        if score_cache_bytes:
            assert engine.statistics().score_cache.entries == len(shares)
