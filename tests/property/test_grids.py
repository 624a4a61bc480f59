"""Laws that kernels of networks of images obey, on random compositions."""

import numpy as np
import pytest
from found import NONLINEARITIES
from slowly import cases

from widthwise.kernels import kernel_matrix
from widthwise.network import (
    AveragePool,
    Concatenate,
    ConcatenatePositions,
    Conv,
    ConvLocal,
    ConvTranspose,
    Crop,
    Dense,
    Elementwise,
    Flatten,
    GlobalAveragePool,
    GlobalSumPool,
    Identity,
    LayerNorm,
    MultiHeadAttention,
    PositionEmbedding,
    Product,
    Readout,
    Resize,
    SelfAttention,
    SumPool,
)

CHEAP = [f for f in NONLINEARITIES if not isinstance(f, Elementwise)]
SHAPE, CHANNELS = (4, 6), 2


def random_network(seed: int, symmetric: bool = False):
    """Convolution, three random steps with weights behind each, and an end. With `symmetric`, only
    steps that know neither left from right nor where they are."""
    rng = np.random.default_rng(seed)

    def pick(choices):
        return choices[rng.integers(len(choices))]

    def conv():
        filters = ((3, 3), (1, 3)) if symmetric else ((3, 3), (2, 3), (1, 2))
        variance, bias = rng.uniform([1.0, 0.0], [2.0, 0.5])
        padding = pick(("SAME", "CIRCULAR"))
        return Conv(pick(filters), None, padding, 1, variance, bias, pick((0.1, 1.0)))

    def step():
        function = pick(CHEAP)
        plain = [
            function >> conv(),
            Identity() + (function >> conv()),
            LayerNorm(axes=pick(((), (0,), (-2, -1)))) >> function >> conv(),
            Concatenate((function, Identity())) >> conv(),
            Product((function, conv())) >> conv(),
            # scores grow with the cube of the variance: beyond 1e10, float64 does not tell rows
            # apart as functions do that are no wider than 1
            function >> SelfAttention(pick(("softmax", "relu", "abs", "identity"))) >> LayerNorm(),
            function >> AveragePool((1, 3), (1, 1), "SAME", edges=True) >> Dense(),
        ]
        if symmetric:
            return pick(plain)
        return pick([
            *plain,
            function >> ConvLocal((2, 2)),
            function >> ConvTranspose((2, 2), strides=(1, 2)),
            function >> Resize((3, 4)) >> conv(),
            function >> SumPool((2, 1), (1, 1)) >> conv(),
            (Identity() + PositionEmbedding(decay=0.5)) >> function >> Conv((1, 1)),
            ConcatenatePositions((function >> conv(), conv()), axis=1),
            function >> MultiHeadAttention() >> LayerNorm(),
            function >> Crop(((None, None, -1), (1, None, 1))) >> conv(),
        ])  # fmt: skip

    net = conv()
    for _ in range(3):
        net = net >> step()
    ends = [GlobalAveragePool(), GlobalSumPool()]
    end = pick(ends if symmetric else [*ends, Flatten() >> pick(CHEAP) >> Dense()])
    return net >> end >> Readout()


def images(count: int):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(count, *SHAPE, CHANNELS)) * rng.uniform(0.5, 1.5, size=(count, 1, 1, 1))
    return np.concatenate([x, x[:1]])  # one of them twice


SEEDS = cases([1], [0, *range(2, 40)])


@pytest.mark.parametrize("seed", SEEDS)
def test_symmetric_positive_and_the_same_in_any_company(seed):
    net, x = random_network(seed), images(4)
    order = np.random.default_rng(seed).permutation(len(x))
    whole, apart = kernel_matrix(net, x), kernel_matrix(net, x[order], x)
    for kernel, other in zip(whole, apart, strict=True):
        size = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        np.testing.assert_array_equal(kernel, kernel.T)
        values = np.linalg.eigvalsh(kernel / size)
        assert values[0] > -1e-12 * values[-1]
        # where an input meets itself, rules with a kink know it only if told
        np.testing.assert_allclose(other / size[order], (kernel / size)[order], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_turning_features_and_mirrors_change_nothing(seed):
    net, x = random_network(seed, symmetric=True), images(3)
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for kernel, other in zip(
        kernel_matrix(net, x), kernel_matrix(net, (x @ turn)[:, :, ::-1]), strict=True
    ):
        size = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        np.testing.assert_allclose(other / size, kernel / size, atol=1e-10)
