"""One step of every layer under the Adam limit: against closed forms and wide finite networks.

The references are for one training row a, where the step of every entry is Q of a number times
features and slopes at a; a row x moves by their products with those at x. The fields of different
neurons are independent, and so are a neuron's h and dx.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from scipy.special import erf, ndtr

import widthwise as ww
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.optimiser import optimiser
from widthwise.finite.train import initial_key
from widthwise.limits.adam import AdamLimit
from widthwise.limits.adam.half import taken
from widthwise.limits.adam.sites import sites_of, variance
from widthwise.problem import Problem

ROWS, INPUTS, LR = 20, 10, 0.1
SIGN: Any = dict(b1=0.0, b2=0.0)
STEPS = {
    "sign": ww.Adam(lr=LR, steps=1, eps=1e-12, **SIGN),
    "softened sign": ww.Adam(lr=LR, steps=1, eps=0.02, **SIGN),
    "Adam's first": ww.Adam(lr=LR, steps=1),
}
FUNCTIONS = {"relu": ww.Relu, "erf": ww.Erf}
EVERY = pytest.mark.parametrize(
    "function, depth", [(name, depth) for name in FUNCTIONS for depth in (1, 2, 3)]
)
HALF_LINE = (np.arange(120) + 0.5) / 120 * 7
NODES = np.concatenate([-HALF_LINE[::-1], HALF_LINE])  # 0, where ReLU bends, lies between two
NORMAL = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()


def problem(rows: int) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS + 10, INPUTS))
    y = np.tanh(x @ rng.standard_normal((INPUTS, 1)) / np.sqrt(INPUTS))
    return Problem(x[:rows], y[:rows], x[ROWS:], y[ROWS:], 0.0, "regression")


def network(function: str, depth: int, trained: int | None = None):
    """A stack of which one layer is trained, counted from 0, or all of them."""
    rates = [float(trained is None or trained == layer) for layer in range(depth + 1)]
    net = ww.Dense(lr_multiplier=rates[0]) >> FUNCTIONS[function]()
    for rate in rates[1:-1]:
        net = net >> ww.Dense(lr_multiplier=rate) >> FUNCTIONS[function]()
    return net >> ww.Readout(lr_multiplier=rates[-1])


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


class Pairs(NamedTuple):
    """Second moments of the training row (first) and others, with the training row alone."""

    own: np.ndarray  # of every row with itself
    cross: np.ndarray  # of every row with the training row

    @property
    def rho(self) -> np.ndarray:
        return np.clip(self.cross / np.sqrt(self.own * self.own[0]), -1, 1)


def moments(function: str, sigma: Pairs) -> tuple[Pairs, Pairs]:
    """E f f' and E f' f'' of Gaussian pre-activations."""
    if function == "relu":
        theta = np.arccos(sigma.rho)
        size = np.sqrt(sigma.own * sigma.own[0]) / (2 * np.pi)
        features = size * (np.sin(theta) + (np.pi - theta) * sigma.rho)
        ones = np.full(len(theta), 0.5)
        return Pairs(sigma.own / 2, features), Pairs(ones, (np.pi - theta) / (2 * np.pi))
    both = (1 + 2 * sigma.own) * (1 + 2 * sigma.own[0])

    def of(covariance, product):
        return (
            2 / np.pi * np.arcsin(2 * covariance / np.sqrt(product)),
            4 / np.pi / np.sqrt(product - 4 * covariance**2),
        )

    alone, together = of(sigma.own, (1 + 2 * sigma.own) ** 2), of(sigma.cross, both)
    return Pairs(alone[0], together[0]), Pairs(alone[1], together[1])


def given(function: str, sigma: Pairs) -> tuple[np.ndarray, ...]:
    """E f(h(x)) and E f'(h(x)) given h(a) at the nodes, (rows, nodes); f and f' of h(a)."""
    mean = sigma.cross[:, None] / np.sqrt(sigma.own[0]) * NODES
    left = np.sqrt(np.maximum(sigma.own * (1 - sigma.rho**2), 1e-14))[:, None]
    at = np.sqrt(sigma.own[0]) * NODES
    if function == "relu":
        density = np.exp(-((mean / left) ** 2) / 2) / np.sqrt(2 * np.pi)
        below = ndtr(mean / left)
        return mean * below + left * density, below, np.maximum(at, 0), (at > 0) * 1.0
    spread = 1 + 2 * left**2
    slope = 2 / np.sqrt(np.pi)
    return (
        erf(mean / np.sqrt(spread)), slope / np.sqrt(spread) * np.exp(-(mean**2) / spread),
        erf(at), slope * np.exp(-(at**2)),
    )  # fmt: skip


def laws(function: str, depth: int, sites, x) -> tuple[list[Pairs], list[Pairs]]:
    """Covariances of h and dx of every hidden layer."""
    forward, slopes = [], []
    sigma = Pairs(np.sum(x**2, axis=1), x @ x[0])
    for site in sites.hidden:
        scale = variance(site.weight)
        sigma = Pairs(scale * sigma.own, scale * sigma.cross)
        forward.append(sigma)
        sigma, slope = moments(function, sigma)
        slopes.append(slope)
    ones = np.full(len(x), variance(sites.readout.weight))
    backward = [Pairs(ones, ones)]
    for site, slope in zip(sites.hidden[:0:-1], slopes[:0:-1], strict=True):
        scale, behind = variance(site.weight), backward[0]
        backward.insert(
            0, Pairs(scale * behind.own * slope.own, scale * behind.cross * slope.cross)
        )
    return forward, backward


def expected(function: str, depth: int, trained: int, eps: float) -> np.ndarray:
    """What one step on one row takes from the outputs of the others, by quadrature of what is left
    when all Gaussians but h(a), x(a) and dx(a) are integrated out."""
    data = problem(1)
    x, chi = np.concatenate([data.x_train, data.x_test]), -float(data.y_train[0, 0])
    sites = sites_of(network(function, depth), ww.NTK(), INPUTS)
    forward, backward = laws(function, depth, sites, x)

    def q(s):
        return s / (np.abs(s) + eps)

    if trained == depth:
        weight, bias = sites.readout.weight, sites.readout.bias
        read, _, at, _ = given(function, forward[-1])
        found = weight.gain * read @ (NORMAL * q(weight.gain * chi * at))
        return LR * (found + bias.gain * q(bias.gain * chi))[1:]
    (weight, bias, _), d = sites.hidden[trained], backward[trained]
    _, passed, _, slope = given(function, forward[trained])
    size = np.sqrt(d.own[0])

    def behind(u):
        """E dx(x) Q(u dx(a)), over D(x, a) / D(a, a)."""
        return size * q(u[..., None] * size * NODES) @ (NORMAL * NODES)

    def entry(gain, read_at):
        """E dh(x) Q(gain chi dh(a) read_at), over the same."""
        return gain * passed @ (NORMAL * behind(gain * chi * read_at * slope))

    if trained == 0:
        found = sum(x[:, k] * entry(weight.gain, x[0, k]) for k in range(INPUTS))
    else:
        read, _, at, _ = given(function, forward[trained - 1])
        steps = behind(weight.gain * chi * slope[:, None] * at)
        found = weight.gain * np.einsum(
            "xh,h,hy,y,xy->x", passed, NORMAL, steps, NORMAL, read, optimize=True
        )
    return LR * (d.cross / d.own[0] * (found + entry(bias.gain, 1.0)))[1:]


def closed_form(function: str, depth: int, trained: int) -> np.ndarray:
    """Of signs: theory page A3, closed form 3."""
    data = problem(1)
    x, sign = np.concatenate([data.x_train, data.x_test]), -np.sign(data.y_train[0, 0])
    sites = sites_of(network(function, depth), ww.NTK(), INPUTS)
    forward, backward = laws(function, depth, sites, x)

    def features(sigma):
        if function == "relu":
            return np.sqrt(sigma.own) * (1 + sigma.rho) / (2 * np.sqrt(2 * np.pi))
        inside = np.sqrt(2) * sigma.cross / np.sqrt(sigma.own[0] * (1 + 2 * sigma.own))
        return 2 / np.pi * np.arcsin(inside)

    if trained == depth:
        weight, bias = sites.readout.weight, sites.readout.bias
        return LR * sign * (weight.gain * features(forward[-1]) + bias.gain)[1:]
    (weight, bias, _), sigma, d = sites.hidden[trained], forward[trained], backward[trained]
    passed = np.sqrt(2 / np.pi) * d.cross / np.sqrt(d.own[0])
    if function == "relu":
        passed *= (np.pi - np.arccos(sigma.rho)) / (2 * np.pi)
    else:
        passed *= 2 / np.sqrt(np.pi) / np.sqrt(1 + 2 * sigma.own)
    read = x @ np.sign(x[0]) if trained == 0 else features(forward[trained - 1])
    return LR * sign * (passed * (weight.gain * read + bias.gain))[1:]


@EVERY
def test_the_quadrature_is_the_closed_form_of_signs(function, depth):
    for trained in range(depth + 1):
        closed = closed_form(function, depth, trained)
        assert rms(expected(function, depth, trained, 1e-12) - closed) < 0.002 * rms(closed)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
@EVERY
def test_one_step_on_one_row_is_its_closed_form(function, depth, name):
    """Of all layers together, in units of their own sampling errors."""
    apart, errors = [], []
    for trained in range(depth + 1):
        limit = AdamLimit(network(function, depth, trained), ww.NTK(), STEPS[name], 65_536)
        state: Any = limit.prepare(problem(1), order=0, logs=2).train().state
        exact = expected(function, depth, trained, STEPS[name].eps)
        one, two = (
            taken(neurons, (moved,), problem(1).x_test)[0, :, 0] for neurons, moved in state.halves
        )
        apart.append(rms((one + two) / 2 - exact) / rms(exact))
        errors.append(rms(one - two) / 2 / rms(exact))
    assert rms(apart) < 3 * rms(errors)
    assert rms(apart) < 0.02


def finite_steps(function: str, depth: int, width: int, seeds: int) -> np.ndarray:
    """What one step of every layer alone takes from networks' outputs at new rows, their initial
    functions subtracted: (seeds, kinds of step, layers, rows)."""
    data = problem(ROWS)
    net = FiniteNetwork(network(function, depth), width, INPUTS, 1, ww.NTK(), True)

    @jax.jit
    def steps(parameters, x, y, new):
        _, pull = jax.vjp(lambda p: net.apply(p, x), parameters)
        (gradient,) = pull(-y / len(x))
        before, leaves = net.apply(parameters, new), jax.tree.leaves(parameters)
        found = []
        for learner in STEPS.values():
            rule = optimiser(net, learner, LR, len(x))
            moves, _ = rule.update(gradient, rule.init(parameters), parameters)
            moves = jax.tree.leaves(moves)
            for layer in range(depth + 1):
                own = range(2 * layer, 2 * layer + 2)  # its weights and bias
                moved = [leaf + moves[i] if i in own else leaf for i, leaf in enumerate(leaves)]
                tree = jax.tree.unflatten(jax.tree.structure(parameters), moved)
                found.append(before - net.apply(tree, new))
        return found

    arrays = [np.asarray(part, np.float32) for part in (data.x_train, data.y_train, data.x_test)]
    found = [np.stack(steps(net.draw(initial_key(seed)), *arrays)) for seed in range(seeds)]
    return np.stack(found)[..., 0].reshape(seeds, len(STEPS), depth + 1, -1)


@pytest.mark.slow
@EVERY
def test_one_step_of_every_layer_approaches_the_limit(function, depth, capsys):
    """The exponent of the gap over widths 64 to 4,096, of every layer and kind of step."""
    widths, seeds = (64, 256, 1024, 4096), 8
    wide = np.empty((len(STEPS), depth + 1, 10))
    for i, learner in enumerate(STEPS.values()):
        for trained in range(depth + 1):
            limit = AdamLimit(network(function, depth, trained), ww.NTK(), learner, 131_072)
            run = limit.prepare(problem(ROWS), order=0, logs=2).train()
            wide[i, trained] = -run.trajectory.predictions[-1][:, 0]
    gaps = np.array([
        np.sqrt(np.mean((finite_steps(function, depth, width, seeds) - wide) ** 2, axis=(0, 3)))
        for width in widths
    ])  # fmt: skip
    logs = np.log(widths) - np.mean(np.log(widths))
    slopes = np.einsum("w,wil->il", logs, np.log(gaps)) / np.sum(logs**2)
    with capsys.disabled():
        for name, of_layers, own in zip(STEPS, slopes, wide, strict=True):
            last = gaps[-1][list(STEPS).index(name)] / np.sqrt(np.mean(own**2, axis=1))
            print(f"\n{function} {depth} {name}: {of_layers.round(2)}, gaps {last.round(3)}")
    assert np.all((slopes > -0.65) & (slopes < -0.35))
