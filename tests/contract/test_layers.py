"""What every layer and every composition must satisfy."""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compositions import drawn, refuses
from found import LAYERS, moved
from layers import GRID, PLACES, SEQUENCE
from slowly import cases

from widthwise.data import load
from widthwise.family import Family, Member
from widthwise.finite import FiniteNetwork
from widthwise.kernels import MonteCarlo, kernel_diagonal, kernel_matrix
from widthwise.kernels.matrix import layer_kernels
from widthwise.learner import GradientDescent, Posterior
from widthwise.limits.base import EmptyCell
from widthwise.limits.table import lookup
from widthwise.network import (
    ABRelu,
    Abs,
    AveragePool,
    Chain,
    Concatenate,
    Conv,
    ConvLocal,
    Crop,
    Dense,
    Elementwise,
    Erf,
    Exp,
    ExpNormalized,
    Flatten,
    Gaussian,
    Gelu,
    GlobalAveragePool,
    GlobalSumPool,
    Hermite,
    Identity,
    LayerNorm,
    LeakyRelu,
    Monomial,
    MultiHeadAttention,
    Polynomial,
    Product,
    Rbf,
    Readout,
    RectifiedMonomial,
    Relu,
    Sigmoid,
    Sum,
    Tanh,
    Unflatten,
)
from widthwise.network.begin import trial_inputs
from widthwise.network.build import specify
from widthwise.network.nonlinear import AbstractNonlinearity
from widthwise.scaling import NTK

RESIDUAL = Dense() >> (Identity() + (Relu() >> Dense())) >> Erf() >> Readout()
NETWORKS = [
    Dense() >> Dense(bias_variance=0.3) >> Readout(),
    Dense(times=2) >> Relu() >> Dense(times=3, weight_variance=1.5) >> Relu() >> Readout(),
    RESIDUAL,
    (Dense() >> Gelu() >> Dense()) + Dense() + (Dense() >> Dense()) >> Abs() >> Readout(),
    (Dense() >> Relu() >> Readout()) + Readout(),
    LayerNorm() >> Dense() >> Relu() >> LayerNorm() >> Dense() >> Erf() >> Readout(),
    Dense() >> Concatenate((Dense(times=2), Relu() >> Dense())) >> Relu() >> Readout(),
    Dense() >> Product((Sigmoid(), Dense())) >> Dense() >> Relu() >> Readout(),
]
# Whose layers and joints meet the limit in others too.
MORE = [
    Unflatten((3, 2)) >> Conv((2, 2)) >> LayerNorm(axes=(0,)) >> Relu() >> Flatten() >> Readout(),
    Unflatten((3, 2))
    >> Conv((2, 2))
    >> (Identity() + (Relu() >> Conv((3, 1), strides=(1, 1))))
    >> GlobalSumPool()
    >> Readout(),
    Unflatten((3, 2), channels=2, channels_first=True)
    >> Conv((2, 2))
    >> Concatenate((Relu(), Erf()))
    >> AveragePool((2, 1), strides=(1, 1), padding="SAME")
    >> Conv((1, 2), padding="VALID")
    >> Relu()
    >> Flatten()
    >> Readout(),
    Dense() >> (Identity() + Identity() + (Erf() >> Dense())) >> Readout(bias_variance=1.0),
    Dense() >> (Identity() + (Dense() >> (Identity() + (Relu() >> Dense())))) >> Readout(),
    Dense() >> Concatenate((Identity(), Dense())) >> LayerNorm() >> Relu() >> Readout(),
    Unflatten((3, 2)) >> Conv((2, 2)) >> Flatten() >> Relu() >> Dense() >> Erf() >> Readout(),
    Unflatten((3, 2)) >> ConvLocal((2, 2)) >> Relu() >> GlobalAveragePool() >> Readout(),
]


# nonlinearities meet wide networks in test_wide_networks.py
OTHERS = [layer for layer in LAYERS if not isinstance(layer, AbstractNonlinearity)]
UNRULED = [MultiHeadAttention(mechanism="softmax", head_size=2)]


# Filters behind the layer tell positions apart, as the sum of a Flatten alone does not.
BEHIND_MEANS = [
    lambda layer: Dense() >> Relu() >> layer >> Dense() >> Erf() >> Readout(),
    lambda layer: GRID >> Relu() >> layer >> Conv((2, 2)) >> Erf() >> Flatten() >> Readout(),
    lambda layer: GRID >> Relu() >> layer >> Conv((2,)) >> Erf() >> Flatten() >> Readout(),
    lambda layer: SEQUENCE >> Relu() >> layer >> Conv((2,)) >> Erf() >> Flatten() >> Readout(),
]
# Layers that do nothing at their defaults, and all others whose numbers can be moved.
MOVED = {x: moved(type(x)) for x in OTHERS if x != ExpNormalized()}  # whose draws see too little
OTHER_SETTINGS = [
    Crop(((1, None, 1), (None, None, 1))),
    *(x for usual, x in MOVED.items() if x != usual),
]


def fitting(layer, places):
    """The networks, of these, that hold the layer where it may stand."""
    found, refusals = [], []
    for place in places:
        try:
            net = place(layer)
            if isinstance(inputs := trial_inputs(net), int):
                specify(net, inputs, 1)
                found.append(net)
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert found or places is BEHIND_MEANS, f"{layer!r} stands nowhere: {refusals[-1]}"
    return found


def placed(layer):
    """A network that holds the layer where it may stand."""
    return fitting(layer, PLACES)[0]


def behind_means(layer):
    """And one where features have means, which a layer might forget."""
    return fitting(layer, BEHIND_MEANS)[:1]


def known(net):
    """What has kernels at infinite width: the network, or the mean over draws of it."""
    return net if net.refusal() is None else MonteCarlo(net, samples=32, width=64)


def compared(layer):
    """The network in which a wide one is held against the limit."""
    if layer == ExpNormalized():
        # The squared slopes exp(2 z) have a kurtosis of 1e7: sixty draws see too little of their
        # tail to tell how fast a gap falls. At a quarter the same rules are held against exp(z).
        layer = ExpNormalized(gamma=0.25)
    return (behind_means(layer) or [placed(layer)])[0]


COMPARED = [*map(compared, OTHERS), *map(placed, UNRULED), *NETWORKS]
MORE += map(compared, OTHER_SETTINGS)
OUTPUTS = 16


@pytest.mark.parametrize(
    "net", cases(COMPARED[::3], [*COMPARED[1::3], *COMPARED[2::3], *MORE]), ids=repr
)
def test_finite_network_agrees_with_the_limit(net, rng, getkey):
    x = rng.normal(size=(3, max(trial_inputs(net), 4)))
    limit = kernel_matrix(known(net), x)
    outputs, tangent = drawn(net, x, 64, 100, getkey(), OUTPUTS)
    products = np.einsum("dio,djo->dij", outputs, outputs) / OUTPUTS
    for found, wanted in ((products, limit.nngp), (tangent, limit.ntk)):
        size = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
        noise = 4 * found.std(axis=0) / 10 / size  # products of features have heavy tails
        gap = np.abs(found.mean(axis=0) - wanted) / size
        assert np.all(gap < np.maximum(0.1, noise))
    size = np.sqrt(np.diag(limit.nngp))
    np.testing.assert_allclose(outputs.mean(axis=(0, 2)) / size, 0, atol=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("net", [*COMPARED, *MORE], ids=repr)
def test_tangent_kernels_approach_the_limit_with_the_root_of_the_width(net, rng, getkey):
    x = rng.normal(size=(3, max(trial_inputs(net), 4)))
    limit = kernel_matrix(known(net), x).ntk
    size = np.sqrt(np.outer(np.diag(limit), np.diag(limit)))
    widths, gaps = np.array([32, 128, 512]), []
    for width in widths:
        tangent = drawn(net, x, int(width), 60, getkey(), OUTPUTS)[1]
        gaps.append(np.sqrt(np.mean(((tangent - limit) / size) ** 2)))
    if net.refusal() is None:  # a limit by sampling has an error of its own
        slope = np.polyfit(np.log(widths), np.log(gaps), 1)[0]
        assert -0.65 < slope < -0.35, gaps


@pytest.mark.parametrize("net", [*LAYERS, *NETWORKS, *MORE], ids=repr)
def test_is_a_value(net):
    again = pickle.loads(pickle.dumps(net))
    assert again == net and hash(again) == hash(net) and repr(again) == repr(net)
    names = {kind.__name__: kind for kind in (Identity, *map(type, LAYERS))}
    names |= {"softplus": jax.nn.softplus}
    assert eval(repr(net), names) == net, "what prints is what makes it"


WITHOUT_RULE = [layer for layer in (*LAYERS, *UNRULED) if layer.refusal() is not None]


@pytest.mark.parametrize("layer", WITHOUT_RULE, ids=repr)
def test_a_layer_without_a_rule_is_refused_at_infinity_before_anything_is_computed(layer, rng):
    net = placed(layer)
    x, data = rng.normal(size=(3, trial_inputs(net))), load("iris")
    one, two = layer >> Conv(), layer >> Conv((1, 1))
    inside, summed = (
        GRID >> joined >> Flatten() >> Readout() for joined in (Concatenate((one, two)), one + two)
    )
    sentence = f"^{type(layer).__name__}.* has no closed form at infinite width: use .*MonteCarlo"
    for whole in (net, placed(layer) >> Identity(), inside, summed):
        for kernel in (kernel_matrix, kernel_diagonal, layer_kernels):
            with pytest.raises(ValueError, match=sentence):
                kernel(whole, x)
        with pytest.raises(EmptyCell, match=sentence):
            Member(whole, np.inf, NTK(), Posterior())
        with pytest.raises(EmptyCell, match=sentence):
            lookup(whole, NTK(), GradientDescent())
        Member(whole, 8, NTK(), GradientDescent())
    with pytest.raises(ValueError, match=sentence):
        layer.kernel(None, None)
    assert known(net).refusal() is None
    family = Family(net, NTK(), GradientDescent(lr=0.1), (np.inf,))
    assert re.match(sentence, family.train(data, progress=False).open_cells[0].sentence)


def test_print_shows_what_is_not_default():
    net = Dense(weight_variance=1.5) >> LeakyRelu(leak=0.01) >> Dense(times=2) >> Readout()
    assert repr(net) == "Dense(weight_variance=1.5) >> LeakyRelu() >> Dense(times=2) >> Readout()"
    assert repr(RESIDUAL) == "Dense() >> (Identity() + (Relu() >> Dense())) >> Erf() >> Readout()"
    assert Dense() != Dense(weight_variance=1.9)


def test_chains_are_flat():
    one, two = Dense() >> Relu(), Dense() >> Erf()
    assert one >> two == Dense() >> Relu() >> Dense() >> Erf()
    assert Chain((one, two)).layers == (Dense(), Relu(), Dense(), Erf())
    assert Chain((one, Chain((two,)))) == one >> two
    assert (Dense() + Dense()) + Dense() == Sum((Dense(), Dense(), Dense()))


def test_sum_of_identities_is_a_factor(rng):
    """Identity() + Identity() is 2 h: covariances and tangent kernel times 4, exactly."""
    x = rng.normal(size=(4, 3))
    once = kernel_matrix(Dense() >> Identity(), x)
    twice = kernel_matrix(Dense() >> (Identity() + Identity()), x)
    np.testing.assert_array_equal(twice.nngp, 4 * once.nngp)
    np.testing.assert_array_equal(twice.ntk, 4 * once.ntk)


def test_sum_of_fresh_branches_adds(rng):
    x = rng.normal(size=(4, 3))
    one, two = Dense() >> Relu() >> Dense(), Dense(weight_variance=0.7)
    for total, a, b in zip(*(kernel_matrix(n, x) for n in (one + two, one, two)), strict=True):
        np.testing.assert_allclose(total, a + b, rtol=1e-13)


REFUSED = {
    "nonlinearity after nonlinearity": (lambda: Dense() >> Relu() >> Erf(), "put Dense"),
    "nonlinearity after a sum of features": (
        lambda: Dense() >> Relu() >> (Identity() + Dense()) >> Relu(),
        "put Dense",
    ),
    "two readouts": (lambda: Dense() >> Readout() >> Readout(), "one readout"),
    "a layer after the readout": (lambda: Readout() >> Dense(), "last layer"),
    "two correlated branches": (
        lambda: Dense() >> (Relu() + Erf()),
        "correlated.*end all but one branch in Dense",
    ),
    "a skip over a nonlinearity": (lambda: Dense() >> (Identity() + Relu()), "correlated"),
    "branches of two sizes": (lambda: Dense() + Dense(times=2), "2n and n"),
    "readout and hidden": (lambda: Dense() + Readout(), "outputs and n"),
    "a nonlinearity after the readout": (lambda: Dense() >> Readout() >> Relu(), "last layer"),
    "a reader behind a layer": (lambda: Identity() >> Unflatten() >> Conv(), "put it first"),
    "a reader in a branch": (lambda: (Unflatten() >> Conv()) + Conv(), "before the branches"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_composed(name, unchecked):
    refuses(*REFUSED[name])


def test_refused_when_it_meets_data():
    with pytest.raises(ValueError, match="need equal sizes"):
        kernel_matrix((Identity() + Dense()) >> Readout(), np.ones((2, 3)))
    with pytest.raises(ValueError, match="add `>> Readout"):
        FiniteNetwork(Dense() >> Relu(), 4, 3, 2, NTK()).draw(jax.random.key(0))
    with pytest.raises(ValueError, match="put Dense"):
        kernel_matrix(Relu() >> Readout(), np.ones((2, 3)))


@pytest.mark.parametrize("wrong", [5, "Relu", Relu, None, jnp.tanh])
def test_what_is_no_layer(wrong, unchecked):
    for compose in (lambda: Dense() >> wrong, lambda: Dense() + wrong, lambda: Chain((wrong,))):
        with pytest.raises(TypeError, match="is no layer"):
            compose()


FIELDS = [
    (Dense, "weight_variance"),
    (Dense, "bias_variance"),
    (Dense, "bias_multiplier"),
    (Readout, "weight_variance"),
    (LeakyRelu, "leak"),
    (Erf, "b"),
    (Rbf, "gamma"),
    (ABRelu, "a"),
    (Gaussian, "b"),
    (Exp, "b"),
    (ExpNormalized, "shift"),
]


@pytest.mark.parametrize("wrong", [True, float("nan"), float("inf"), "2", None, [1.0], 1j])
@pytest.mark.parametrize("kind, field", FIELDS)
def test_settings_that_are_no_numbers(kind, field, wrong, unchecked):
    with pytest.raises((TypeError, ValueError), match=f"^{field} of {kind.__name__} is .*: give"):
        kind(**{field: wrong})


def test_settings_out_of_range(unchecked):
    for make, words in {
        lambda: Dense(weight_variance=-1.0): "finite number over 0",
        lambda: Dense(weight_variance=0): "finite number over 0",
        lambda: Readout(bias_variance=-0.1): "at least 0",
        lambda: Dense(bias_variance=0.1, bias_multiplier=0.0): "left out",
        lambda: Rbf(gamma=0.0): "over 0",
        lambda: ExpNormalized(gamma=0.0): "over 0",
        lambda: Gaussian(b=0.1): "at most 0",
        lambda: Monomial(-1): "whole number, at least 0",
        lambda: Hermite(-1): "whole number, at least 0",
        lambda: RectifiedMonomial(-1): "whole number, at least 0",
        lambda: Dense(times=0): "whole number, at least 1",
    }.items():
        with pytest.raises(ValueError, match=words):
            make()
    for make in (
        lambda: Dense(times=1.5),  # type: ignore[arg-type]
        lambda: Dense(times=True),
        lambda: Elementwise(3),
        lambda: Monomial(1.5),  # type: ignore[arg-type]
        lambda: Polynomial(()),
        lambda: Polynomial(3.0),
        lambda: Polynomial((1.0, float("nan"))),
        lambda: Polynomial("12"),
    ):
        with pytest.raises(TypeError, match="give a"):
            make()


def test_bias_that_is_left_out(rng):
    x = rng.normal(size=(3, 2))
    np.testing.assert_allclose(kernel_matrix(Dense(bias_multiplier=0), x).ntk, x @ x.T)
    with_bias = kernel_matrix(Dense(bias_multiplier=0.5), x)
    np.testing.assert_allclose(with_bias.ntk, x @ x.T + 0.25)
    np.testing.assert_allclose(with_bias.nngp, x @ x.T)


def test_every_layer_is_known_to_the_command_line():
    from widthwise.lookup import layer_named

    for layer in LAYERS:
        assert layer_named(type(layer).__name__.lower()) == layer
        assert isinstance(layer, AbstractNonlinearity | Dense | Readout | Identity) or layer.source


def test_times_scale_every_width(getkey):
    net = Dense(times=2) >> Tanh() >> Dense(times=3) >> Readout()
    shapes = [p.shape for p in jax.tree.leaves(FiniteNetwork(net, 8, 5, 2, NTK()).draw(getkey()))]
    assert shapes == [(5, 16), (16,), (16, 24), (24,), (24, 2), (2,)]


def test_sum_refuses_nothing_that_is_written_by_hand():
    assert Sum((Dense(), Dense())) == Dense() + Dense()
