"""Entrywise optimisers against their formulas, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.entrywise import entrywise
from widthwise.learner import Adam, SignDescent
from widthwise.solve import float64

GRADIENTS = np.random.default_rng(0).normal(size=(5, 4))


def by_hand(gradients, b1, b2, eps, corrected):
    m, v, found = np.zeros(4), np.zeros(4), []
    for count, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        whole1, whole2 = (1 - b1**count, 1 - b2**count) if corrected else (1, 1)
        found.append(m / whole1 / (np.sqrt(v / whole2) + eps))
    return found


def signs_by_hand(gradients, momentum, eps):
    m, found = np.zeros(4), []
    for g in gradients:
        m = momentum * m + (1 - momentum) * g
        found.append(m / (np.abs(m) + eps))
    return found


@pytest.mark.parametrize(
    "learner, expected",
    [
        (Adam(b1=0.8, b2=0.95, eps=0.1), by_hand(GRADIENTS, 0.8, 0.95, 0.1, True)),
        (
            Adam(b1=0.8, b2=0.95, eps=0.1, bias_correction=False),
            by_hand(GRADIENTS, 0.8, 0.95, 0.1, False),
        ),
        (SignDescent(momentum=0.7, eps=0.2), signs_by_hand(GRADIENTS, 0.7, 0.2)),
    ],
    ids=["adam", "not corrected", "signs"],
)
def test_an_optimiser_is_its_formula(learner, expected):
    with float64():
        made = entrywise(learner)
        state = made.init({"w": jnp.zeros(4)})
        for g, wanted in zip(GRADIENTS, expected, strict=True):
            found, state = made.update({"w": jnp.asarray(g)}, state)
            np.testing.assert_allclose(np.asarray(jax.tree.leaves(found)[0]), wanted, rtol=1e-9)
