"""Zero-shot classification gives the numbers of transformers' own pipeline on the same checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from pairwire.server.engine import ClassifyOptions, Engine, EngineConfig
from tests import checkpoints
from tests.shared import Shared

LABELS = ["cats", "the weather", "bread", "prices of goods and services"]
LONG = " ".join(checkpoints.TEXTS) * 3
TEXTS = [checkpoints.TEXTS[0], checkpoints.TEXTS[3], checkpoints.TEXTS[9], LONG]
ORDERS = {
    "contradiction first": ["contradiction", "entailment", "neutral"],
    "entailment first": ["ENTAILMENT", "neutral", "contradiction"],
    "entailment last, neutral first": ["neutral", "contradiction", "Entailed"],
}
TOLERANCE = 1e-5

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def checkpoint(shared: Shared) -> Path:
    return shared.directory("checkpoint/nli", lambda where: checkpoints.save_cross_encoder(where, labels=3, seed=3))


@pytest.fixture(scope="module")
def package(checkpoint: Path, shared: Shared) -> Path:
    from pairwire.export import ExportConfig, export_checkpoint

    def export(where: Path) -> None:
        config = ExportConfig(
            tune=False, parity=False, checkpoint=str(checkpoint), output=where, precisions=("fp32",), name="nli"
        )
        export_checkpoint(config)

    return shared.directory("package/nli", export)


@pytest.fixture(scope="module")
def pipe(checkpoint: Path) -> Callable[..., Any]:
    from transformers import pipeline

    made: Callable[..., Any] = pipeline("zero-shot-classification", model=str(checkpoint), device="cpu")
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ORDERS)
async def both(
    request: pytest.FixtureRequest, package: Path, pipe: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Engine, Callable[..., Any]]]:
    """The engine on a package, and the pipeline on its checkpoint; both are told the same names of the logits."""
    names = ORDERS[request.param]
    pipe.model.config.label2id = {name: index for index, name in enumerate(names)}
    reordered = tmp_path_factory.mktemp("nli") / "package"
    shutil.copytree(package, reordered)
    checkpoints.edit_json(reordered / "manifest.json", labels=names)
    async with await Engine.open(reordered, config=EngineConfig(workers=1, warmup_s=0.01)) as engine:
        yield engine, pipe


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("template", [None, "It is about {}, is it not?", "{0}: {0}"])
async def test_numbers_are_those_of_the_pipeline(
    both: tuple[Engine, Callable[..., Any]], multi_label: bool, template: str | None
) -> None:
    engine, pipe = both
    options = ClassifyOptions(multi_label=multi_label, hypothesis_template=template)
    found = await engine.classify(TEXTS, LABELS, options=options)
    chosen = {} if template is None else {"hypothesis_template": template}
    for text, scores in zip(TEXTS, found.scores, strict=True):
        expected = pipe(text, candidate_labels=LABELS, multi_label=multi_label, **chosen)
        assert [LABELS[at] for at in np.argsort(-scores)] == expected["labels"]
        by_label = dict(zip(expected["labels"], expected["scores"], strict=True))
        np.testing.assert_allclose(scores, [by_label[label] for label in LABELS], atol=TOLERANCE, rtol=0)
    assert found.usage.truncated_inputs == (TEXTS.index(LONG),)


async def test_a_single_label_is_judged_by_itself(both: tuple[Engine, Callable[..., Any]]) -> None:
    engine, pipe = both
    for multi_label in (False, True):
        found = await engine.classify(TEXTS[:1], LABELS[:1], options=ClassifyOptions(multi_label=multi_label))
        expected = pipe(TEXTS[0], candidate_labels=LABELS[:1], multi_label=multi_label)
        assert 0 < found.scores[0, 0] < 1
        np.testing.assert_allclose(found.scores[0], expected["scores"], atol=TOLERANCE)
