"""Every architecture in docs/models.md, exported whole and compared with sentence-transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from pairwire.export import toolset
from tests.export.models.case import Case, Refusal
from tests.export.models.cases import CASES, REFUSALS
from tests.export.models.document import FILE, ORDER, as_markdown, structure
from tests.export.models.measure import Row, measure, refused
from tests.shared import Shared

EXACT = 1e-5
"""Largest difference of a float32 logit, per unit of the largest; of vectors, per unit of length."""

NEWEST = toolset.look().major("transformers") >= 5
"""The set without optimum (`make test-next`): some cases unless all are asked for."""
ALL = not NEWEST or os.environ.get("PAIRWIRE_MATRIX") == "all"
RUN = [case for case in CASES if ALL or case.newest]
REFUSED = [refusal for refusal in REFUSALS if not NEWEST or refusal.newest]

Measured = Callable[[Case], list[Row]]


@pytest.fixture(scope="module")
def measured(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The rows of a case, measured once a run."""

    def rows(case: Case) -> list[Row]:
        return shared.value(f"models/{case.name}", lambda: measure(case, tmp_path_factory.mktemp("models")))

    return rows


@pytest.fixture(scope="module")
def said(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Refusal], str]:
    """What the export says of a checkpoint that is refused, asked once a run."""

    def reason(refusal: Refusal) -> str:
        return shared.value(f"refused/{refusal.what}", lambda: refused(refusal, tmp_path_factory.mktemp("refused")))

    return reason


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({refusal.what for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.name)
def test_model_is_exported_exactly_with_the_passes_that_apply(case: Case, measured: Measured) -> None:
    rows = {row.precision: row for row in measured(case)}
    assert list(rows) == [*case.precisions, "fp16"]
    assert rows["fp32"].difference < EXACT
    for precision in case.precisions:
        row = rows[precision]
        expected = {name: count for name, count in case.passes.items() if precision == "int8" or "quantize" not in name}
        if NEWEST:  # which computes the shapes of a Reshape in another way
            expected.pop("constant_reshapes")
        assert row.passes is not None
        assert {name: row.passes[name] for name in expected} == expected, row.reasons
        assert row.spearman >= ORDER
        silent = [name for name, count in expected.items() if not count and name not in (row.reasons or {})]
        assert silent == []  # a pass that finds nothing says why
    half = rows["fp16"]
    if isinstance(case.half, str):
        assert re.match(f"({half.architecture}|it) has no fp16 variant: {case.half}", half.refused), half.refused
    else:
        assert half.passes is not None
        assert {name: half.passes[name] for name in case.half} == case.half
        assert half.spearman >= ORDER


@pytest.mark.parametrize("refusal", REFUSED, ids=lambda refusal: refusal.what)
def test_what_cannot_be_exact_is_refused_with_the_reason(refusal: Refusal, said: Callable[[Refusal], str]) -> None:
    assert refusal.reason in said(refusal)


@pytest.mark.skipif(NEWEST, reason="docs/models.md is of the set with optimum")
def test_the_document_tells_what_was_found(measured: Measured, said: Callable[[Refusal], str]) -> None:
    rows = [row for case in CASES for row in measured(case)]
    refusals = {refusal.what: said(refusal) for refusal in REFUSALS}
    assert structure(FILE.read_text(encoding="utf-8")) == structure(as_markdown(rows, refusals)), (
        "docs/models.md is stale: python -m tests.export.models"
    )
