"""Predictions of given kernel matrices; test_predict_oracle.py has reference values."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.kernels import kernel_matrix
from widthwise.learner import GradientDescent, GradientFlow
from widthwise.limits import condition, descend, lookup
from widthwise.limits.descent import largest_stable_step
from widthwise.network import Dense, Readout, Relu
from widthwise.problem import Diverged, Problem
from widthwise.scaling import NTK

NET, OUTPUTS = Dense() >> Relu() >> Readout(), 3
X, NEW, Y = (np.random.default_rng(0).normal(size=size) for size in ((12, 5), (4, 5), (12, 3)))
KERNEL, CROSS = kernel_matrix(NET, X).ntk, kernel_matrix(NET, NEW, X).ntk
FROM = {"cross": CROSS, "start": 0.1 * Y, "new_start": np.ones((4, 3))}


@pytest.mark.parametrize("batch_size", [None, 4])
def test_steps_are_those_of_a_member(batch_size):
    learner = GradientDescent(lr=0.1, steps=20, momentum=0.5, batch_size=batch_size)
    limit = lookup(NET, NTK(), learner)
    problem = Problem(X, Y, NEW, np.zeros((4, OUTPUTS)), 0.0, "regression")
    trajectory = limit.prepare(problem, order=3, logs=5).train().trajectory
    found = descend(KERNEL, Y, learner, cross=CROSS, order=3, logs=5)
    np.testing.assert_array_equal(found.times, trajectory.steps)
    np.testing.assert_allclose(found.new, trajectory.predictions, rtol=1e-10)


def test_the_step_size_that_is_not_given():
    learner = GradientDescent(steps=3)
    lr = 0.5 * largest_stable_step(KERNEL, learner)
    found, wanted = (
        descend(KERNEL, Y, own) for own in (learner, dataclasses.replace(learner, lr=lr))
    )
    np.testing.assert_allclose(found.train, wanted.train, rtol=1e-12)
    assert found.new.shape == (len(found.times), 0, OUTPUTS)
    with pytest.raises(Diverged, match="largest stable step"):
        descend(KERNEL, Y, dataclasses.replace(learner, lr=3 * lr))


def test_a_jitter_is_told():
    again = np.ones((3, 3))
    told = condition(again, np.ones((3, 1)), 0.0, cross=again).given
    assert told.startswith("the data, with Gaussian noise, and a jitter of 1e-1")


def test_float32_and_arrays_of_jax():
    kernel, y = jnp.asarray(KERNEL, "float32"), jnp.asarray(Y, "float32")
    flowing = GradientFlow(time=3.0)
    found, wanted = descend(kernel, y, flowing), descend(KERNEL, Y, flowing)
    np.testing.assert_allclose(found.train[-1], wanted.train[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "words, change",
    [
        (r"kernel has shape \(4, 12\): give", {"kernel": CROSS}),
        ("kernel is not finite and symmetric", {"kernel": np.triu(KERNEL)}),
        ("kernel is not finite and symmetric", {"kernel": np.full((12, 12), np.nan)}),
        (r"targets have shape \(12,\) and kernel \(12, 12\): give", {"targets": Y[:, 0]}),
        (r"targets have shape \(4, 3\)", {"targets": Y[:4]}),
        (r"cross has shape \(12, 4\): give .* \(m, 12\)", {"cross": CROSS.T}),
        (r"new_start has shape \(12, 3\): give \(4, 3\)", {"new_start": Y}),
        (r"start has shape \(4, 3\): give \(12, 3\)", {"start": Y[:4]}),
        ("Weight decay", {"learner": GradientDescent(weight_decay=0.1)}),
    ],
)
def test_what_does_not_fit_is_refused(words, change):
    given = {"kernel": KERNEL, "targets": Y, "learner": GradientFlow(), **FROM} | change
    with pytest.raises(ValueError, match=words):
        descend(**given)


def test_refusals_of_processes():
    with pytest.raises(ValueError, match="noise is -1.0: give a variance"):
        condition(KERNEL, Y, -1.0, cross=CROSS)
    with pytest.raises(ValueError, match=r"prior has shape \(12, 12\): give \(4, 4\)"):
        condition(KERNEL, Y, 1.0, cross=CROSS, prior=KERNEL)
