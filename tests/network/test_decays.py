"""How embeddings of positions become unlike with their distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compositions import refuses

from widthwise.kernels import kernel_matrix
from widthwise.network import (
    Conv,
    Flatten,
    Identity,
    PositionEmbedding,
    Readout,
    Relu,
    SelfAttention,
    Unflatten,
)
from widthwise.network.places import correlating, correlations


def squared(offsets):
    return np.exp(-0.3 * np.sum(offsets**2, axis=-1))


def squared_by_jax(offsets):
    return jnp.exp(-0.3 * jnp.sum(offsets**2, axis=-1))


def steps(offsets):
    return np.exp(-np.abs(offsets).sum(axis=-1))


def added(decay):
    return Conv() >> (Identity() + PositionEmbedding(decay=decay)) >> Relu()


def read(decay):
    return SelfAttention(position_variance=0.5, position_decay=decay) >> Relu()


@pytest.mark.parametrize("layers", [added, read])
@pytest.mark.parametrize("decay", [squared, squared_by_jax])
def test_a_function_is_as_good_as_its_number(layers, decay, rng):
    x = rng.normal(size=(3, 6))
    found, wanted = (
        kernel_matrix(Unflatten((3, 2)) >> layers(own) >> Flatten() >> Readout(), x)
        for own in (decay, 0.3)
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("decay", [steps, 0.3, None, 1e-3])
def test_drawn_embeddings_have_the_correlations(decay, getkey):
    """At 1e-3 most eigenvalues of the correlations round to less than zero."""
    layer, shape, count = PositionEmbedding(decay=decay), (5, 4), 20000
    drawn = layer.apply(jax.random.normal(getkey(), (20, count)), jnp.zeros((*shape, 1)))
    features = np.asarray(drawn, dtype=np.float64).reshape(20, count)
    wanted = correlations(shape, decay)
    np.testing.assert_allclose(features @ features.T / count, wanted, atol=6 / count**0.5)
    root = correlating(shape, decay)
    np.testing.assert_allclose(root @ root.T, wanted, atol=1e-12)


def apart(offsets):
    return -np.ones(offsets.shape[:2]) + 2 * (np.abs(offsets).sum(axis=-1) == 0)


def later(offsets):
    return np.exp(-np.maximum(offsets.sum(axis=-1), 0))


def twice(offsets):
    return 2 * steps(offsets)


@pytest.mark.parametrize("decay", [apart, later, twice])
def test_what_makes_no_correlations_is_refused_when_composed(decay, unchecked):
    for layers in (added, read):
        refuses(
            lambda layers=layers: Unflatten((3, 2)) >> layers(decay),
            f"The decay {decay.__name__} makes no correlations of a grid of 3 x 2: give a function",
        )


def test_what_decays_axis_by_axis_is_refused(unchecked):
    def each(offsets):
        return np.exp(-np.abs(offsets))

    refuses(
        lambda: Unflatten((3, 2)) >> added(each),
        r"The decay each made shape \(6, 6, 2\) of offsets \(6, 6, 2\): give a function",
    )
