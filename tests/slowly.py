"""Cases that always run, and more of the same kind that run with the slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def cases(always: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """For `parametrize`: those of the second kind are marked slow. A tuple is several values."""
    slow = [case if isinstance(case, tuple) else (case,) for case in others]
    return [*always, *(pytest.param(*case, marks=pytest.mark.slow) for case in slow)]


def cases_of(names: Iterable[str], always: Iterable[str]) -> list[Any]:
    """The names in their order; those that do not always run are marked slow."""
    kept = set(always)
    return [x if x in kept else pytest.param(x, marks=pytest.mark.slow) for x in names]
