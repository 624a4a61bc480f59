"""scikit-learn's own checks of an estimator, none skipped that its Gaussian processes pass."""

from collections import Counter
from typing import Any
from unittest import SkipTest

import pytest
from sklearn.base import is_classifier
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from widthwise.sklearn import WideClassifier, WideRegressor

INFINITE = [
    kind(learner=learner)
    for learner in ("Posterior", "GradientDescent")
    for kind in (WideClassifier, WideRegressor)
]
FINITE = [
    kind(width=64, learner=learner)
    for learner in ("GradientDescent", "Adam")
    for kind in (WideClassifier, WideRegressor)
]
QUICK = [INFINITE[0], INFINITE[3]]  # each kind and each learner once


def peer(estimator):
    return GaussianProcessClassifier() if is_classifier(estimator) else GaussianProcessRegressor()


def passes(estimator, check) -> bool:
    """True if a check runs through; False if it says itself that it cannot."""
    try:
        check(estimator)
    except SkipTest:
        return False
    return True


def hold(estimator, check) -> None:
    if not passes(estimator, check):
        assert not passes(peer(estimator), check), "skipped, and the Gaussian process passes"
        pytest.skip("cannot be run here, on scikit-learn's Gaussian process neither")


@parametrize_with_checks(QUICK)
def test_at_infinity(estimator, check):
    hold(estimator, check)


@pytest.mark.slow
@parametrize_with_checks([one for one in (*INFINITE, *FINITE) if one not in QUICK])
def test_all_others(estimator, check):
    hold(estimator, check)


@pytest.mark.parametrize("estimator", [*INFINITE, *FINITE], ids=repr)
def test_no_check_is_missing(estimator):
    assert not checks_of(peer(estimator)) - checks_of(estimator)


def checks_of(estimator) -> Counter[str]:
    """The names of the checks that scikit-learn chooses for an estimator, by its tags."""
    generated: Any = estimator_checks_generator(estimator, mark=None)
    return Counter(f"{check.func.__name__} {check.keywords}" for _, check in generated)
