"""The documentation's examples run, and print what the pages say."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SKIPPED = {"extend.md"}  # its examples stand inside classes: tests/faces/test_extend.py
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if ">>> " in page.read_text(encoding="utf-8") and page.name not in SKIPPED
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_page_s_examples_run(page, unchecked):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert found.attempted and not found.failed


def test_pages_that_are_mostly_examples():
    for name in ("errors.md", "neural_tangents.md", "api/sklearn.md"):
        assert DOCS / name in PAGES
