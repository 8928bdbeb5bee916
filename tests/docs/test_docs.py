"""The pages say what is true: generated ones are current, links lead somewhere, files that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .reference import DOCS, metrics_page, options_page

ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("deploy/*.md")])
_LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
_FILE = re.compile(r"`((?:server|export|client|cli|protos|tests|benchmarks|examples|docs|deploy)/[\w./]+\.\w+)`")


@pytest.mark.parametrize(("page", "made"), [("options.md", options_page), ("metrics.md", metrics_page)])
def test_a_page_that_is_made_from_the_code_is_current(page: str, made) -> None:  # type: ignore[no-untyped-def]
    assert (DOCS / page).read_text(encoding="utf-8") == made(), "run `python -m tests.docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and file.suffix == ".md":
            assert anchor[1:] in _anchors(file), f"{page.name} links to {target}{anchor}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it tells of files as they were
    missing = [name for name in _FILE.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index]


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def _anchors(file: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
