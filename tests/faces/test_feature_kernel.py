"""Learned feature kernels in scikit-learn's machines."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.svm import SVC

from widthwise.data import load
from widthwise.family import Member
from widthwise.learner import GradientDescent
from widthwise.network import Dense, Readout, Relu
from widthwise.scaling import NTK, MuP
from widthwise.sklearn import FeatureKernel

NET = Dense() >> Relu() >> Readout()


@pytest.fixture(scope="module", params=[32, math.inf], ids=["width 32", "width inf"])
def run(request):
    data = load("iris", seed=0)
    learner = GradientDescent(lr=0.3, steps=20, batch_size=20, projection=8)
    return Member(NET, request.param, MuP(), learner).train(data), data


def test_machines_take_it(run):
    run, data = run
    labels = data.labels_train
    kernel: Any = FeatureKernel(run)
    assert SVC(kernel=kernel, C=100).fit(data.x_train, labels).score(data.x_train, labels) > 0.9
    noisy: Any = FeatureKernel(run, normalized=True) + WhiteKernel(0.1)
    process: Any = GaussianProcessRegressor(noisy)
    mean, std = process.fit(data.x_train, data.y_train[:, 0]).predict(data.x_test, return_std=True)
    assert mean.shape == std.shape == (len(data.x_test),)


def test_it_is_the_kernel_that_was_logged(run):
    run, data = run
    found = FeatureKernel(run)(data.x_test)
    logged = list(run.trajectory.kernels.values())[-1][-1]
    np.testing.assert_allclose(found, logged, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.diag(found), FeatureKernel(run).diag(data.x_test), rtol=1e-6)
    unit = FeatureKernel(run, normalized=True)(data.x_test[:4])
    assert np.ptp(np.diag(unit)) < 1e-6


def test_runs_without_learned_features_are_refused():
    data = load("iris")
    lazy = Member(NET, math.inf, NTK(), GradientDescent(steps=2)).train(data)
    with pytest.raises(ValueError, match="projection="):
        FeatureKernel(lazy)(data.x_test)
