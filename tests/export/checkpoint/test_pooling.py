from __future__ import annotations

from collections.abc import Sequence

import pytest

from pairwire.export.checkpoint.pooling import MODES, right_padded

torch = pytest.importorskip("torch")

LENGTHS = (9, 5, 1, 7, 3)
PROMPTS = (3, 0, 0, 6, 2)
HIDDEN = 8


def batch() -> dict[str, torch.Tensor]:
    """Token vectors of rows of ``LENGTHS``; what padding holds is large, so that it shows wherever it is read."""
    torch.manual_seed(0)
    mask = (torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]).long()
    tokens = torch.randn(len(LENGTHS), max(LENGTHS), HIDDEN) + 1000 * (1 - mask[:, :, None])
    return {"token_embeddings": tokens, "attention_mask": mask, "prompt_lengths": torch.tensor(PROMPTS)}


def ours(modes: Sequence[str], features: dict[str, torch.Tensor], *, include_prompt: bool) -> torch.Tensor:
    pooled: torch.Tensor = right_padded(modes, include_prompt=include_prompt)(dict(features))["sentence_embedding"]
    return pooled


def theirs(modes: Sequence[str], features: dict[str, torch.Tensor], *, include_prompt: bool) -> torch.Tensor:
    """Row by row, as one batch has one prompt there."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(HIDDEN, pooling_mode=list(modes), include_prompt=include_prompt)  # type: ignore[arg-type]
    rows = []
    for row, prompt in enumerate(features["prompt_lengths"].tolist()):
        one = {name: features[name][row : row + 1] for name in ("token_embeddings", "attention_mask")}
        rows.append(pooling(one | ({"prompt_length": prompt} if prompt else {}))["sentence_embedding"])
    return torch.cat(rows)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("modes", [*[[mode] for mode in MODES], list(MODES)], ids="+".join)
def test_every_mode_pools_as_sentence_transformers_does(modes: list[str], include_prompt: bool) -> None:
    features = batch()
    torch.testing.assert_close(
        ours(modes, features, include_prompt=include_prompt), theirs(modes, features, include_prompt=include_prompt)
    )


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "max"])
def test_a_row_that_the_prompt_fills_is_pooled_as_sentence_transformers_does(mode: str) -> None:
    features = batch() | {"prompt_lengths": torch.tensor([9, 5, 4, 7, 3])}
    torch.testing.assert_close(
        ours([mode], features, include_prompt=False), theirs([mode], features, include_prompt=False)
    )


def test_the_largest_of_nothing_is_zero_where_sentence_transformers_has_minus_infinity() -> None:
    features = batch() | {"prompt_lengths": torch.tensor([9, 5, 4, 7, 3])}
    assert torch.isinf(theirs(["max"], features, include_prompt=False)).all()
    assert (ours(["max"], features, include_prompt=False) == 0).all()


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_row_without_tokens_is_zeros_but_for_its_first_token(include_prompt: bool) -> None:
    features = batch()
    features["attention_mask"][2] = 0
    pooled = ours(MODES, features, include_prompt=include_prompt).reshape(len(LENGTHS), len(MODES), HIDDEN)
    torch.testing.assert_close(pooled[2, MODES.index("cls")], features["token_embeddings"][2, 0])
    assert (pooled[2, [at for at, mode in enumerate(MODES) if mode != "cls"]] == 0).all()
    others = [0, 1, 3, 4]
    expected = theirs(MODES, features, include_prompt=include_prompt).reshape(len(LENGTHS), len(MODES), HIDDEN)
    torch.testing.assert_close(pooled[others], expected[others])
