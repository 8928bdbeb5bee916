import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine import Activation
from pairwire.server.engine.outputs.heads import Head, activate

LOGITS = np.array([[0.0, 1.0, -2.0], [500.0, -500.0, 88.0]], dtype=np.float32)


def test_identity_gives_the_logits() -> None:
    assert activate(LOGITS, Activation.IDENTITY) is LOGITS


def test_sigmoid_is_right_and_never_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        scores = activate(LOGITS, Activation.SIGMOID)
    expected = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-30)
    assert scores.dtype == np.float32


def test_softmax_is_right_and_never_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        scores = activate(LOGITS, Activation.SOFTMAX)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scores[0], np.exp([0, 1, -2]) / np.exp([0, 1, -2]).sum(), rtol=1e-6)
    assert scores[1].tolist() == [1.0, 0.0, 0.0]
    assert scores.dtype == np.float32


@pytest.mark.parametrize("activation", list(Activation))
@given(logit=st.floats(-1e4, 1e4, width=32))
def test_a_rows_score_does_not_depend_on_its_neighbours(activation: Activation, logit: float) -> None:
    alone = np.array([[logit, 1.0]], dtype=np.float32)
    together = np.concatenate([alone, LOGITS[:, :2]])
    assert activate(alone, activation)[0].tolist() == activate(together, activation)[0].tolist()


def test_scale_and_bias_come_before_the_activation_in_float32() -> None:
    head = Head(Activation.SIGMOID, 0.2, -1.0)
    scores = head.scores(LOGITS)
    np.testing.assert_array_equal(scores, activate(np.float32(0.2) * LOGITS + np.float32(-1), Activation.SIGMOID))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(
        head.with_activation(Activation.IDENTITY).scores(LOGITS), np.float32(0.2) * LOGITS - np.float32(1)
    )
    assert head.with_activation(None) is head


def test_a_bare_head_does_nothing() -> None:
    assert Head().scores(LOGITS) is LOGITS
