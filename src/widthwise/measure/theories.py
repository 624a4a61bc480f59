"""What three theories say of a posterior at one width: its last features' kernel, its variance."""

import contextlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.features import passed_on, second_moments
from widthwise.learner import Posterior
from widthwise.limits import NNGP, DeepKernelMachine
from widthwise.limits.base import AbstractLimit
from widthwise.limits.dkm.layers import as_drawn, gram_layers, refusal_of
from widthwise.limits.proportional import proportional
from widthwise.limits.proportional.action import orders_behind
from widthwise.limits.shared import shared_kernels
from widthwise.limits.table import regime
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.scaling import AbstractScaling

ROWS = 600  # training rows above which no deep kernel machine is fitted


class Theory(NamedTuple):
    """The kernel of the last hidden layer's features at the probe rows, and the mean variance of
    an output there."""

    kernel: Float[np.ndarray, "q q"]
    variance: float


class Setting(NamedTuple):
    """One network at one width, whose outputs have `copies`, conditioned with this noise.

    The scaling is that under which it was drawn with outputs of order one.
    """

    network: AbstractLayer
    width: int
    scaling: AbstractScaling
    noise: float
    copies: float
    problem: Problem

    @classmethod
    def of(cls, run: Any, problem: Problem) -> "Setting":
        """What a run of a finite width was conditioned on."""
        learner = run.learner
        if regime(run.network, run.scaling, learner) != "rich":
            return cls(run.network, int(run.width), run.scaling, learner.noise, 1.0, problem)
        scaling, nu = as_drawn(run.scaling), np.max(learner.nu)  # they are equal at finite width
        return cls(
            run.network, int(run.width), scaling, learner.noise, float(run.width / nu), problem
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers; none where the network is no chain of Dense and functions."""
        if refusal_of(self.network) is not None:
            return ()
        return tuple(self.width * layer.times for layer in gram_layers(self.network)[:-1])


def theories(setting: Setting) -> dict[str, Theory]:
    """By name, those that know this network: the NNGP first, if it does.

    The deep kernel machine has nu = width / copies, and the proportional limit copies of its
    outputs, of which it takes one order parameter for what they share and one for how they differ.
    """
    found = {}
    nngp = NNGP(setting.network, setting.scaling, Posterior(noise=setting.noise))
    if setting.network.refusal() is not None or nngp.refusal() is not None:
        return found
    found["NNGP"] = _of_limit(nngp, setting)
    if not setting.widths:
        return found
    if setting.copies > 0 and len(setting.problem.x_train) <= ROWS:
        nu = setting.width / setting.copies
        learner = Posterior(prior="deep_gp", nu=nu, noise=setting.noise)
        machine = DeepKernelMachine(setting.network, setting.scaling, learner)
        with contextlib.suppress(ValueError):  # it has no optimum here, or none that is found
            found["deep kernel machine"] = _of_limit(machine, setting)
    if setting.copies < 1:  # hidden layers that are nearly those of the prior
        return found
    with contextlib.suppress(ValueError):
        found["proportional limit"] = _proportional(setting, found["NNGP"])
    return found


def _of_limit(limit: AbstractLimit, setting: Setting) -> Theory:
    trained = limit.prepare(setting.problem, order=0, logs=2).train()
    kernel = list(trained.trajectory.kernels.values())[-1][-1]
    return Theory(np.asarray(kernel), mean_variance(trained.state.predict, setting.problem))


def mean_variance(predict: Any, problem: Problem) -> float:
    """Of an output at the probe rows, as a run or a state predicts it."""
    return float(np.mean(predict(problem.probes, True).std ** 2))


def _proportional(setting: Setting, nngp: Theory) -> Theory:
    """Copies of the outputs with one set of targets are, in other coordinates, one that has them
    times the root of their number, and others that have none."""
    problem, widths, copies = setting.problem, setting.widths, setting.copies
    x, probes, outputs = problem.x_train, problem.probes, problem.y_train.shape[1]
    kernel = shared_kernels(setting.network, x, scaling=setting.scaling).nngp
    cross = shared_kernels(setting.network, probes, x, scaling=setting.scaling).nngp
    prior = shared_kernels(setting.network, probes, scaling=setting.scaling).nngp
    taught, variances = [0.0 * prior for _ in widths], []
    for share, count in ((np.sqrt(copies), 1.0), (0.0, copies - 1.0)):
        if count == 0:
            continue
        found = proportional(kernel, share * problem.y_train, widths, setting.noise)
        behind = [np.linalg.inv(order)[None] for order in orders_behind(found.order, widths)]
        own = second_moments(found.problem, np.ones(1), found.order[None], behind, cross, prior)
        taught = [before + count * one for before, one in zip(taught, own, strict=True)]
        square = found.predict(cross, np.diagonal(prior)).covariance
        assert square is not None
        variances.append(float(np.mean(np.diagonal(square, axis1=1, axis2=2))))
    gram = passed_on(taught, outputs * copies, widths, prior)[-1]
    unit = np.trace(nngp.kernel) / np.trace(prior)
    # a copy is a part of what they share, and for the rest of how they differ
    variance = (variances[0] + (copies - 1) * variances[-1]) / copies
    return Theory(unit * gram, variance)
