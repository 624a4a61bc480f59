"""Linear deep kernel machines against their closed forms."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from widthwise.limits import linear_grams
from widthwise.limits.dkm.full import best_grams, posed
from widthwise.limits.dkm.layers import gram_layers
from widthwise.network import Dense, Identity, Readout
from widthwise.scaling import MuP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 7))
GRAM = X @ X.T / 7
FULL, FEW = RNG.normal(size=(5, 6)), RNG.normal(size=(5, 2))  # targets of rank 5 and 2


def network(depth: int, variance: float = 1.0):
    net: Any = Dense(weight_variance=variance)
    for _ in range(depth - 1):
        net = net >> Identity() >> Dense(weight_variance=variance)
    return net >> Readout(weight_variance=variance)


def optimised(net, x, y, nus, noise):
    fixed = posed(net, x, y, scaling=MuP(), nus=nus, noise=noise)
    found = best_grams(gram_layers(net), fixed, tolerance=1e-9)
    roots: Any = found.passage.grams
    return [root @ root.T for root in roots]


def near(found, expected, rtol: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one - other) <= rtol * np.linalg.norm(other)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equal_nu_is_the_geodesic(depth):
    root = scipy.linalg.sqrtm(GRAM)
    inverse = np.linalg.inv(root)
    middle = inverse @ (FULL @ FULL.T / 6) @ inverse
    powers = [
        scipy.linalg.fractional_matrix_power(middle, layer / (depth + 1))
        for layer in range(1, depth + 1)
    ]
    expected = [root @ power @ root for power in powers]
    near(linear_grams(GRAM, FULL, (6.0,) * depth), expected, 1e-10)
    near(optimised(network(depth), X, FULL, (6.0,) * depth, 0.0), expected, 1e-6)


@pytest.mark.parametrize(
    "y, nus, noise",
    [
        (FULL, (2.0, 9.0), 0.0),
        (FEW, (3.0, 4.0), 0.0),  # rank 2 of 5, every nu over 2
        (FEW, (1.0, 4.0), 0.3),
        (FULL, (0.5, 1.0, 20.0), 0.1),
    ],
    ids=["unequal", "few targets", "noise, few targets", "noise"],
)
def test_unequal_nu_and_noise(y, nus, noise):
    expected = linear_grams(GRAM, y, nus, noise=noise)
    near(optimised(network(len(nus)), X, y, nus, noise), expected, 1e-6)


def test_across_the_targets_every_layer_shrinks_by_its_own_factor():
    y = np.array([[2.0], [0.0], [0.0]])
    first, second = linear_grams(np.eye(3), y, (4.0, 5.0))
    assert first[1, 1] == pytest.approx(1 - 1 / 4) and second[2, 2] == pytest.approx(0.75 * 0.8)


def test_variances_only_scale():
    """Weight variances v in L + 1 layers act as targets and noise over v^(L + 1)."""
    found = optimised(network(2, 3.0), X, FEW, (1.0, 2.0), 0.3)
    expected = linear_grams(GRAM, FEW / 27**0.5, (1.0, 2.0), noise=0.3 / 27)
    near(found, [3 * expected[0], 9 * expected[1]], 1e-6)


def test_more_rows_than_columns():
    """The Gram matrices are singular, and those of rows in their own span."""
    x = X[:, :3]
    found = optimised(network(2), x, FEW, (1.0, 2.0), 0.3)
    near(found, linear_grams(x @ x.T / 3, FEW, (1.0, 2.0), noise=0.3), 1e-6)
    assert np.linalg.matrix_rank(found[1]) == 3


def test_what_collapses_is_refused():
    with pytest.raises(ValueError, match="hidden layer 2 is 2.*give a nu over 2, or noise"):
        linear_grams(GRAM, FEW, (3.0, 2.0))
    with pytest.raises(ValueError, match="no more rows than columns"):
        linear_grams(GRAM[:1].T @ GRAM[:1], FEW, (3.0,))
