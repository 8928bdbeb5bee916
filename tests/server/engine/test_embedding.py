"""What an engine does to vectors after the graph, and what it refuses before it."""

from __future__ import annotations

import numpy as np
import pytest

from pairwire.server.engine import EmbedOptions, Engine, EngineConfig
from pairwire.server.errors import InvalidInput
from pairwire.server.runtime.fake import FakeRuntime
from tests.server.engine import toys

TEXTS = ["the lazy dog", "bake bread", ""]


def engine(runtime: FakeRuntime, *, default_dimensions: int = 0, score_cache_bytes: int = 0) -> Engine:
    manifest = toys.bi_encoder_manifest(dimensions=8)
    manifest.default_dimensions = default_dimensions
    return Engine([toys.toy_model(runtime, manifest)], config=EngineConfig(score_cache_bytes=score_cache_bytes))


async def test_too_many_dimensions_are_refused_before_anything_is_computed() -> None:
    runtime = FakeRuntime(outputs=8)
    async with engine(runtime) as served:
        for dimensions in (0, 9):
            with pytest.raises(InvalidInput, match=f"^dimensions: {dimensions} is not between 1 and 8"):
                await served.embed(TEXTS, options=EmbedOptions(dimensions=dimensions))
        assert runtime.batches == []
        assert (await served.embed(TEXTS, options=EmbedOptions(dimensions=8))).embeddings.shape == (3, 8)
        assert runtime.batches


async def test_a_request_may_ask_for_more_than_the_checkpoint_gives_by_itself() -> None:
    async with engine(FakeRuntime(outputs=8), default_dimensions=3) as served:
        for asked, given in ((None, 3), (2, 2), (5, 5), (8, 8)):
            found = await served.embed(TEXTS, options=EmbedOptions(dimensions=asked))
            assert found.embeddings.shape == (3, given)


async def test_a_vector_that_was_kept_is_cut_anew_for_every_request() -> None:
    runtime = FakeRuntime(outputs=8)
    async with engine(runtime, score_cache_bytes=1 << 20) as served:
        whole = (await served.embed(TEXTS)).embeddings
        computed = len(runtime.batches)
        unit = (await served.embed(TEXTS, options=EmbedOptions(dimensions=4, normalize=True))).embeddings
        assert unit == pytest.approx(np.full((3, 4), 0.5))  # every number of a toy's vector is the same
        assert np.array_equal((await served.embed(TEXTS)).embeddings, whole)
        assert len(runtime.batches) == computed
