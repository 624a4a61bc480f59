"""The posterior of a linear convolutional network, by draws that owe nothing to each other."""

import functools

import jax
import numpy as np

from widthwise.finite.deep_linear.filters import Filter, chain_of
from widthwise.finite.deep_linear.kernels import KernelMixture
from widthwise.finite.deep_linear.weights import drawn_weights
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.posterior.diagnostics import Diagnostics
from widthwise.finite.posterior.sampled import SampledState, logged_kernels, whitened_of
from widthwise.finite.posterior.trajectory import trajectory_of
from widthwise.inference import Sampling
from widthwise.network.reader import Unflatten
from widthwise.problem import Problem
from widthwise.run import Trajectory
from widthwise.solve import float64

POSITIONS = 64  # of a hidden layer, above which draws reach no posterior in reasonable time
SAMPLES = 4000  # weighted draws of the chain


def convolved_posterior(
    net: FiniteNetwork,
    filters: tuple[Filter, ...],
    problem: Problem,
    sampling: Sampling,
    *,
    noise: float,
    seed: int,
) -> tuple[SampledState, Trajectory, tuple[str, ...]]:
    """State, trajectory and notes of the posterior of a linear network with one output.

    Matrices that say how positions are read, weighted to be the posterior's, and to some of them,
    taken as often as their weights say, the hidden layers' weights. There are as many draws as
    `sampling` asks for, and no chains.

    Raises ValueError where draws do not reach the posterior.

    Source: bassetti2024, convolutional layers.
    """
    *hidden, _ = filters
    most = max(len(own.taps[0]) for own in hidden)
    if most > POSITIONS:
        raise ValueError(f"A hidden layer has {most} positions, and {POSITIONS} are the most.")
    x, y = grids_of(net, problem.x_train), problem.y_train
    kernels = functools.partial(_kernels, hidden[0], x)
    draws = KernelMixture.of(chain_of(filters), kernels, y, noise, SAMPLES, seed).draws
    rng = np.random.default_rng(seed)
    count = sampling.chains * sampling.draws
    at = (rng.random() + np.arange(count)) / count
    chosen = np.searchsorted(np.cumsum(draws.weights), at).clip(max=SAMPLES - 1)
    positions = np.stack([
        np.concatenate([
            own.ravel()
            for own in drawn_weights(
                filters, [one[i] for one in draws.layers], x, y[:, 0], noise, rng
            )
        ])
        for i in chosen
    ])  # fmt: skip
    whitened = whitened_of(net)
    mixing = Diagnostics(1.0, draws.effective, 0)
    state = SampledState(whitened, positions, problem.x_train, y, noise, mixing, draws.log_evidence)
    notes = (
        f"The log evidence of width {net.width} is {draws.log_evidence:.6g} ± "
        f"{draws.standard_error:.1g}, of {SAMPLES} weighted draws of how positions are read, which "
        f"are worth {draws.effective:.0f}; {count} networks are drawn from them.",
    )
    kernels = logged_kernels(whitened, positions, problem.probes, seed)
    return state, trajectory_of(state, problem, kernels), notes


def grids_of(net: FiniteNetwork, x: np.ndarray) -> np.ndarray:
    """Rows as (n, positions, channels)."""
    first = net.network.sequence[0]
    with float64():
        found = (
            jax.vmap(lambda row: first.apply(None, row))(x) if isinstance(first, Unflatten) else x
        )
    return np.asarray(found).reshape(len(x), -1, found.shape[-1])


def _kernels(first: Filter, x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """(s, n, n), of the output, where positions of the first hidden layer are read so."""
    read = first.read(matrices)
    total = np.zeros((len(read), len(x), len(x)))
    for channel in np.moveaxis(x, 2, 0):
        total += channel @ read @ channel.T
    return total
