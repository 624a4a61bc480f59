"""The lazy limits at full size: accuracy on digits, and how finite networks approach them."""

import math
from typing import Any

import numpy as np
import pytest

import widthwise as ww
from widthwise.compare import Comparison
from widthwise.family import Family, Member
from widthwise.measure import Consistency
from widthwise.measure.agreement import accuracy

pytestmark = pytest.mark.slow
USUAL = Comparison()


@pytest.mark.parametrize("learner", [ww.GradientFlow(), ww.Posterior()], ids=repr)
def test_accuracy_on_digits(learner, capsys):
    """1,000 training and 797 test images, stratified, seeds 0 to 9."""
    found = []
    for seed in range(10):
        data = ww.data.load("digits", seed=seed)
        assert (len(data.x_train), len(data.x_test)) == (1000, 797)
        run = Member(USUAL.network, math.inf, ww.NTK(), learner).train(data, logs=3)
        found.append(accuracy(run.trajectory.predictions[-1], data.y_test))
    with capsys.disabled():
        print(f"\n{learner}: {np.round(found, 4).tolist()}, mean {np.mean(found):.4f}")
    assert np.mean(found) >= 0.978


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_finite_networks_approach_the_limit(name, capsys):
    """The families of `widthwise compare`, with eight seeds; for few rows one width more."""
    widths = USUAL.widths if name == "digits" else (64, 256, 1024, 4096, math.inf)
    family = Family(USUAL.network, ww.NTK(), USUAL.learner, widths, seeds=8)
    runs = family.train(ww.data.load(name), progress=False)
    finding: Any = Consistency()(runs)
    with capsys.disabled():
        print(f"\n{name}: {finding.sentence}")
        off = finding.numbers["ensemble_mean_in_standard_errors"]
        print(f"{name}: the ensemble's mean is {off:.2f} standard errors from the limit's")
    laws = finding.numbers["exponents"]
    for what in ("predictions", "ensemble mean", "NNGP kernel at start"):
        assert -0.65 < laws[what]["exponent"] < -0.35, (what, laws[what])
        assert laws[what]["resolved"], (what, laws[what])
    assert laws["ensemble std"]["exponent"] < -0.25
    assert off < 1.5
