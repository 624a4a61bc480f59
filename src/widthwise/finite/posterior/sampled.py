"""The posterior of a finite network by sampling its hidden layers."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.posterior.chains import draw, prior_draws
from widthwise.finite.posterior.diagnostics import Diagnostics, diagnostics
from widthwise.finite.posterior.trajectory import trajectory_of
from widthwise.finite.posterior.whitened import Conditioned, Observed, Whitened
from widthwise.inference import Sampling
from widthwise.memory import check_free
from widthwise.problem import Problem
from widthwise.run import AbstractState, OutputsPrediction, Prediction, Trajectory, check_columns
from widthwise.solve import blocks_of, float64

BLOCK = 2048  # new rows at once
GIVEN = "the data, with Gaussian noise, over draws of a network of this width"


class SampledState(AbstractState, eqx.Module):
    """Draws of the hidden layers; the readout given each of them is Gaussian.

    `draws` (s, z) are the chains' one after another, `diagnostics` what is known of their mixing.
    `log_evidence`, log p(y), is known of networks whose draws need no chains.
    """

    source: ClassVar[str] = (
        "neal1996, hybrid Monte Carlo for networks; hoffman2014, the no-U-turn sampler"
    )
    whitened: Whitened
    draws: Float[np.ndarray, "s z"]
    x_train: Float[np.ndarray, "n d"]
    y_train: Float[np.ndarray, "n k"]
    noise: float
    diagnostics: Diagnostics
    log_evidence: float | None = None

    def predict(
        self, x: Float[np.ndarray, "m d"], covariance: bool
    ) -> Prediction | OutputsPrediction:
        """With several outputs, the covariance between them at each row: the hidden layers that
        they share make them depend on each other."""
        check_columns(x, self.x_train.shape[1])
        given = (self.whitened, self._observed(), self.draws)
        with float64():
            if not covariance:
                parts = [_mean(*given, x[part]) for part in blocks_of(len(x), BLOCK)]
                value = np.concatenate([np.zeros((0, self.y_train.shape[1])), *parts])
                return Prediction(value, None, GIVEN)
            if self.y_train.shape[1] == 1:
                value, square = map(np.asarray, _between_rows(*given, x))
                return Prediction(value, square, GIVEN)
            parts = [_between_outputs(*given, x[part]) for part in blocks_of(len(x), BLOCK)]
            value, square = (np.concatenate(part) for part in zip(*parts, strict=True))
            return OutputsPrediction(value, square, GIVEN)

    def _observed(self) -> Observed:
        return Observed(self.x_train, self.y_train, self.noise, 1.0)


def sampled_posterior(
    net: FiniteNetwork,
    problem: Problem,
    sampling: Sampling,
    *,
    noise: float,
    copies: float,
    seed: int,
    advance: Callable[[float], None],
) -> tuple[SampledState, Trajectory, tuple[str, ...]]:
    """State, trajectory and notes of a posterior, sampled in float64.

    The prior is the network as drawn under its scaling. Hidden layers are sampled and the readout
    is integrated out, so that a draw is a Gaussian process on features, and what is predicted is
    the mean over draws of its mean and covariance. With `copies` of the outputs, each with a
    readout of its own and the same targets, the likelihood of the hidden layers is that of one copy
    to that power, which need not be a whole number, and the prediction that of one copy. As the
    width n and with it the copies n / nu grow, the Gram matrix of a linear network's features
    becomes that of `DeepKernelMachine` at the same nu: its prior is Wishart's with n degrees of
    freedom, whose log density, like the likelihood's, is n times a function of the Gram matrix.

    Source: neal1996, hybrid Monte Carlo for networks; yang2023theory, section 4.
    """
    check_draws(net, sampling)
    whitened = whitened_of(net)
    size, count = whitened.size, sampling.chains * sampling.draws
    data = Observed(problem.x_train, problem.y_train, float(noise), float(copies))
    probes = problem.probes
    if size:
        drawn = draw(whitened, data, sampling, seed, advance)
        positions = drawn.positions.reshape(-1, size)
        with float64():
            values = np.asarray(_each(whitened, data, positions, probes))
        values = values.reshape(sampling.chains, sampling.draws, -1)
        mixing = diagnostics(values, drawn.divergences)
        notes = mixing.told(sampling, len(probes), f"At width {net.width}, seed {seed}")
    else:
        positions, mixing = np.zeros((1, 0), np.float32), Diagnostics(1.0, float(count), 0)
        notes = ["The network has no hidden weights, so that its posterior is a Gaussian process."]
        advance(1.0)
    state = SampledState(
        whitened, positions, problem.x_train, problem.y_train, float(noise), mixing
    )
    kernels = logged_kernels(whitened, positions, probes, seed)
    if copies != 1:
        notes.append(
            f"At width {net.width} the likelihood counts {copies:g} times: the network has as many "
            "copies of its outputs, and predictions are those of one."
        )
    return state, trajectory_of(state, problem, kernels), tuple(notes)


def logged_kernels(
    whitened: Whitened, draws: Float[np.ndarray, "s z"], x: Float[np.ndarray, "q d"], seed: int
) -> dict[str, Float[np.ndarray, "2 q q"]]:
    """Each logged layer's kernel of features at some rows, over the prior's draws and these."""
    start = prior_draws(whitened, len(draws), seed)
    with float64():
        before, after = (_kernels(whitened, one, x) for one in (start, draws))
    return {name: np.stack([before[name], after[name]]) for name in before}


def whitened_of(net: FiniteNetwork) -> Whitened:
    """The network as its prior has it, with one output in place of many."""
    return Whitened(FiniteNetwork(net.network, net.width, net.n_inputs, 1, net.scaling))


def check_draws(net: FiniteNetwork, sampling: Sampling) -> None:
    """Raises MemoryError for more numbers than find memory."""
    size, count = whitened_of(net).size, sampling.chains * sampling.draws
    check_free(
        8 * count * size,
        f"{count:,} draws of {size:,} weights at width {net.width}",
        "give Sampling fewer draws, or use a smaller width",
    )


def _given(whitened: Whitened, data: Observed, z, x):
    """The readout on one draw's features, and the features of new rows."""
    z = jnp.asarray(z, data.x.dtype)
    return Conditioned.on(whitened.features(z, data.x), data), whitened.features(z, x)


def _over(draws, one: Callable[[Any], Any]) -> Any:
    """The mean over draws of a tree of arrays, one draw at a time."""
    like = jax.eval_shape(one, draws[0])
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    total, _ = jax.lax.scan(
        lambda sums, z: (jax.tree.map(jnp.add, sums, one(z)), None), zero, draws
    )
    return jax.tree.map(lambda leaf: leaf / len(draws), total)


@functools.partial(jax.jit, static_argnums=0)
def _mean(whitened: Whitened, data: Observed, draws, x):
    def one(z):
        found, new = _given(whitened, data, z, x)
        return new @ found.weights

    return _over(draws, one)


@functools.partial(jax.jit, static_argnums=0)
def _each(whitened: Whitened, data: Observed, draws, x):
    """The mean of every draw."""

    def one(z):
        found, new = _given(whitened, data, z, x)
        return new @ found.weights

    return jax.lax.map(one, draws)


@functools.partial(jax.jit, static_argnums=0)
def _between_rows(whitened: Whitened, data: Observed, draws, x):
    """Mean (m, 1), and covariance (m, m) of one output."""

    def one(z):
        found, new = _given(whitened, data, z, x)
        value = new @ found.weights
        return value, found.covariance(new) + value @ value.T

    value, square = _over(draws, one)
    return value, square - value @ value.T


@functools.partial(jax.jit, static_argnums=0)
def _between_outputs(whitened: Whitened, data: Observed, draws, x):
    """Mean (m, k), and covariance (m, k, k) of the outputs at each row."""
    eye = jnp.eye(data.y.shape[1])

    def one(z):
        found, new = _given(whitened, data, z, x)
        value = new @ found.weights
        own = jnp.diagonal(found.covariance(new))
        return value, own[:, None, None] * eye + value[:, :, None] * value[:, None, :]

    value, square = _over(draws, one)
    return value, square - value[:, :, None] * value[:, None, :]


@functools.partial(jax.jit, static_argnums=0)
def _mean_kernels(whitened: Whitened, draws, x):
    def one(z):
        found = whitened.net.features(whitened.parameters(jnp.asarray(z, x.dtype)), x)
        return {name: h @ h.T / h.shape[1] for name, h in found.items()}

    return _over(draws, one)


def _kernels(whitened: Whitened, draws, x) -> dict[str, Float[np.ndarray, "q q"]]:
    """The mean over draws of each logged layer's kernel of features."""
    found = _mean_kernels(whitened, draws, jnp.asarray(x))
    return {name: np.asarray(kernel) for name, kernel in found.items()}
