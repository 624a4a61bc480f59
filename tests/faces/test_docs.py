"""The documentation's examples run."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "api" / "sklearn.md"


def test_the_page_s_examples_run():
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 10 and not found.failed
