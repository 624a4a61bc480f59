"""Whole trajectories of finite networks under Adam against the limit, on the digits."""

import math
import re

import numpy as np
import pytest

import widthwise as ww
from widthwise.limits.adam import AdamLimit
from widthwise.measure.gaps import gaps_of
from widthwise.measure.power import fit_power

pytestmark = pytest.mark.slow
WIDTHS = (64, 256, 1024)
SAMPLES = 16_384
# In all of them eps is above the bound at which steps of one size end in a cycle of two: lr / eps
# times the largest eigenvalue of the tangent kernel over rows, 0.35, is 0.70 at most, and below 2.
SETTINGS = {
    "full batch": ww.Adam(lr=0.02, steps=100, eps=0.01),
    "batches of 40": ww.Adam(lr=0.02, steps=100, eps=0.01, batch_size=40),
    "softened signs": ww.Adam(lr=0.02, steps=100, eps=0.1, b1=0.0, b2=0.0),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_networks_approach_the_limit(name, capsys):
    """Each from its own initial function; 400 rows to train on, 400 to predict."""
    net = ww.Dense() >> ww.Relu() >> ww.Dense() >> ww.Relu() >> ww.Readout()
    data, learner = ww.data.load("digits", train=400, test=400), SETTINGS[name]
    limit = AdamLimit(net, ww.NTK(), learner, samples=SAMPLES)
    family = ww.Family(net, ww.NTK(), learner, (*WIDTHS, math.inf), seeds=3, limit=limit)
    runs = family.train(data, progress=False, logs=4)
    assert runs.limit is not None
    gaps = gaps_of(runs).predictions
    law, note = fit_power(np.array(WIDTHS, float), gaps), runs.limit.notes[0]
    with capsys.disabled():
        print(f"\n{name}: {gaps.mean(axis=1).round(4)}, exponent {law.exponent:.2f}. {note}")
    assert -0.65 < law.exponent < -0.35
    sampling = re.search(r"([\d.]+)% of the function", note)
    assert sampling is not None and float(sampling[1]) / 100 < gaps[-1].mean() / 2.5
