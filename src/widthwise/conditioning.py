"""A network of finite width, conditioned on data: what is not given is chosen, then the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

from widthwise.finite.deep_linear.filters import filters_of
from widthwise.finite.deep_linear.one_output import log_evidence, one_output_of
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.posterior import (
    MixtureState,
    SampledState,
    check_draws,
    check_installed,
    convolved_posterior,
    exact_widths,
    mixture_posterior,
    sampled_posterior,
)
from widthwise.inference import Sampling
from widthwise.kernels import MonteCarlo, kernel_matrix
from widthwise.kernels.matrix import check_memory
from widthwise.learner import Posterior
from widthwise.limits.base import EmptyCell
from widthwise.limits.dkm.layers import NO_NU, as_drawn
from widthwise.limits.nngp import CHOSE
from widthwise.limits.noise import NOISES, best_noise, least_noise
from widthwise.limits.shared import shared_kernels
from widthwise.limits.table import regime
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.run import Trajectory
from widthwise.scaling import AbstractScaling


class FinitePosterior(NamedTuple):
    """What conditioning leaves; `noise` is the one that was given, or chosen."""

    state: MixtureState | SampledState
    trajectory: Trajectory
    noise: float
    notes: tuple[str, ...]


class _Way(NamedTuple):
    """The scaling under which the network is drawn, the copies of its outputs, and the widths of
    the layers of its exact mixture, None where it is sampled."""

    scaling: AbstractScaling
    copies: float
    exact: tuple[int, ...] | None


def check_conditioning(
    network: AbstractLayer,
    width: int,
    scaling: AbstractScaling,
    learner: Posterior,
    problem: Problem,
) -> None:
    """Raises EmptyCell for settings that a finite width has no posterior of, and for more draws
    than find memory; MemoryError for a kernel that finds none; ImportError without BlackJAX."""
    away = f"leave it out at width {width}, or use width=inf."
    if learner.kernel == "ntk":
        raise EmptyCell(
            f"kernel='ntk' is that of infinitely wide networks linear in their parameters: {away}"
        )
    if learner.inducing is not None:
        raise EmptyCell(f"Inducing points stand for rows in infinitely wide networks: {away}")
    if learner.tune:
        raise EmptyCell(
            "tune chooses variances by closed forms of infinite width: train width=inf with it, "
            f"and give the network that its notes name to width {width}."
        )
    if learner.likelihood != "gaussian":
        raise EmptyCell(f"likelihood={learner.likelihood!r} is for infinite width: {away}")
    way = _way(network, width, scaling, learner)
    linear = exact_widths(network, width) is not None
    if learner.prior == "deep_gp" and not linear:
        raise EmptyCell(
            f"A deep Gaussian process of width {width} is no network: use "
            "Posterior(prior='network'), or width=inf."
        )
    if learner.noise is None and not (way.exact and problem.y_train.shape[1] == 1):
        rows = len(problem.x_train)
        check_memory(rows, rows)
        if not isinstance(network, MonteCarlo) and (said := network.refusal()) is not None:
            raise EmptyCell(f"The noise is chosen for the NNGP, and {said} Or give a noise.")
    if way.exact is None:
        check_installed()
        inputs, outputs = problem.x_train.shape[1], problem.y_train.shape[1]
        net = FiniteNetwork(network, width, inputs, outputs, way.scaling)
        try:
            check_draws(net, learner.sampling)
        except MemoryError as error:  # narrower ones of a family may do
            raise EmptyCell(str(error)) from None


def _way(network: AbstractLayer, width: int, scaling: AbstractScaling, learner: Posterior) -> _Way:
    """Under a rich scaling a network has width / nu copies of its outputs, as they were drawn."""
    exact = exact_widths(network, width)
    if regime(network, scaling, learner) != "rich":
        return _Way(scaling, 1.0, exact)
    if learner.nu is None:
        raise EmptyCell(NO_NU)
    nus = set(learner.nu) if isinstance(learner.nu, tuple) else {learner.nu}
    if len(nus) != 1 or 0 in nus:
        raise EmptyCell(
            f"nu is {learner.nu!r}: at width {width} all hidden layers have as many features for "
            "each copy of the outputs as Dense(times=...) says, so give one number above 0."
        )
    return _Way(as_drawn(scaling), width / nus.pop(), None)


def condition(
    network: AbstractLayer,
    width: int,
    scaling: AbstractScaling,
    learner: Posterior,
    problem: Problem,
    *,
    seed: int,
    advance: Callable[[float], None] | None = None,
) -> FinitePosterior:
    """The posterior of a network of finite width.

    Under lazy scalings the likelihood is the usual one. Linear networks are then exact mixtures of
    Gaussian processes: dense ones of one output and, as far as draws reach them, of several, and
    convolutional ones of one output. All others are sampled by chains.

    Under rich scalings the likelihood of the hidden layers grows with the width: the outputs, drawn
    to be of order one, come in width / nu copies, each with the targets. At nu = inf the hidden
    layers are those of the prior.

    Noise that is not given is chosen by the mixture's evidence where it is exact for one output,
    and otherwise for the NNGP by the learner's criterion, which notes tell.

    Args:
        network, width, scaling, learner, problem: as of a `Member`.
        seed: of the draws.
        advance: called with the share that is done since the last call.

    Raises as `check_conditioning`.
    """
    check_conditioning(network, width, scaling, learner, problem)
    tell: Any = advance or (lambda share: None)
    way = _way(network, width, scaling, learner)
    inputs, outputs = problem.x_train.shape[1], problem.y_train.shape[1]
    net = FiniteNetwork(network, width, inputs, outputs, way.scaling)
    noise, notes = _noise(net, learner, problem, way)
    try:
        found = _exact(net, way, learner.sampling, problem, noise, seed)
    except ValueError as error:
        check_installed()
        notes.append(f"No exact mixture: {error} The network was sampled instead.")
        found = None
    if found is not None:
        tell(1.0)
        state, trajectory, said = found
        return FinitePosterior(state, trajectory, noise, (*notes, *said))
    state, trajectory, said = sampled_posterior(
        net, problem, learner.sampling, noise=noise, copies=way.copies, seed=seed, advance=tell
    )
    return FinitePosterior(state, trajectory, noise, (*notes, *said))


def _exact(
    net: FiniteNetwork, way: _Way, sampling: Sampling, problem: Problem, noise: float, seed: int
) -> tuple[MixtureState | SampledState, Trajectory, tuple[str, ...]] | None:
    """Of linear networks; None of others. Raises ValueError where draws do not reach it."""
    if way.exact is not None:
        return mixture_posterior(net, problem, noise=noise, seed=seed)
    filters = filters_of(net) if way.copies == 1 and problem.y_train.shape[1] == 1 else None
    if filters is None:
        return None
    return convolved_posterior(net, filters, problem, sampling, noise=noise, seed=seed)


def _noise(
    net: FiniteNetwork, learner: Posterior, problem: Problem, way: _Way
) -> tuple[float, list[str]]:
    """What is given, or what is best, and what is said of it."""
    if learner.noise is not None:
        return float(learner.noise), []
    x, y = problem.x_train, problem.y_train
    chose = CHOSE[learner.criterion]
    if way.exact is not None and y.shape[1] == 1 and learner.criterion == "evidence":
        kernel = kernel_matrix(net.network, x, which="nngp", scaling=net.scaling, width=net.width)
        posed, widths = one_output_of(kernel, y, 1.0), way.exact
        scale = float(kernel.trace()) / len(kernel)
        noise, _ = least_noise(
            lambda noise: -log_evidence(posed._replace(noise=noise), widths), scale, y, NOISES[0]
        )
        return noise, [f"{chose} a noise variance of {noise:.3g} at width {net.width}."]
    noise, _ = best_noise(
        shared_kernels(net.network, x, scaling=net.scaling).nngp, y, learner.criterion
    )
    return noise, [f"{chose} a noise variance of {noise:.3g} for the NNGP."]
