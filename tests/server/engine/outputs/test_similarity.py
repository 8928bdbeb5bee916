"""Similarities are sentence-transformers' own, and of each document alone."""

from __future__ import annotations

import numpy as np
import pytest

from pairwire.server.engine.outputs.similarity import SIMILARITIES


def vectors(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 48)).astype(np.float32)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_each_is_what_sentence_transformers_gives(name: str) -> None:
    from sentence_transformers import SimilarityFunction

    documents = vectors(40)
    documents[3] = 0
    query = documents[7] * 2
    expected = SimilarityFunction.to_similarity_fn(name)(query, documents)[0].numpy()
    found = SIMILARITIES[name](query, documents)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(found) > 0.1, "or any constant would pass"


def test_a_checkpoint_that_says_nothing_means_the_cosine() -> None:
    documents = vectors(5)
    np.testing.assert_array_equal(
        SIMILARITIES[""](documents[0], documents), SIMILARITIES["cosine"](documents[0], documents)
    )


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_a_documents_number_does_not_depend_on_the_others(name: str) -> None:
    documents = vectors(257)
    together = SIMILARITIES[name](documents[0], documents)
    for at in (0, 1, 17, 256):
        assert SIMILARITIES[name](documents[0], documents[at : at + 1])[0] == together[at]
