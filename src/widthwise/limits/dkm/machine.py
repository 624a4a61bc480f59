"""The rich posterior: hidden layers whose Gram matrices learn, a Gaussian process on the last."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.kernels.matrix import layer_kernels
from widthwise.learner import AbstractLearner, Posterior
from widthwise.limits.base import (
    UNKEPT,
    AbstractLimit,
    AbstractPrepared,
    Elsewhere,
    EmptyCell,
    Start,
    Trained,
    Work,
)
from widthwise.limits.dkm.choice import (
    HELD_OUT,
    ITERATIONS,
    ROUGH,
    Choice,
    Learn,
    choose,
    downwards,
    split,
)
from widthwise.limits.dkm.layers import (
    NO_TANGENT_KERNEL,
    as_drawn,
    gram_layers,
    is_linear,
    refusal_of,
)
from widthwise.limits.dkm.learned import TOLERANCE, DeepKernelState, Learned, learn
from widthwise.limits.dkm.minimise import HISTORY
from widthwise.limits.dkm.prior import chosen_for_nngp
from widthwise.limits.inducing import all_rows, check_points, points_of, settle
from widthwise.limits.inducing import refusal_of as refusal_of_settings
from widthwise.limits.nngp import trajectory_of
from widthwise.limits.shared import shared_kernels
from widthwise.memory import check_free
from widthwise.network.begin import readers
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.problem import Problem
from widthwise.scaling import AbstractScaling
from widthwise.solve import Factor

HELD = 12  # matrices of all rows that a layer and its gradient hold
LEAST = 2 * HELD_OUT  # rows of which nu is chosen, so that two are held out
SILENT = 1e-10  # a noise below this part of the outputs' variance counts as none


class DeepKernelMachine(AbstractLimit):
    """Hidden layers with Gram matrices that maximise log p(y | G^L) - sum of nu KL(G^l | K(G^l-1)).

    >>> learner = Posterior(prior="deep_gp", nu=10.0, noise=0.1)
    >>> DeepKernelMachine(Dense() >> Relu() >> Readout(), MuP(), learner).regime
    'rich'

    A deep Gaussian process whose hidden layers have N nu times `times` features and whose outputs
    are N independent copies, each with the targets, as N grows: the Gram matrix G^l of every hidden
    `Dense()` settles, and features are Gaussian with that covariance. K is what the layers' rules
    make of the Gram matrix before. Outputs are the Gaussian process with covariance K(G^L), and the
    covariance that is predicted is that of one copy. With nu = inf it is the `NNGP`.

    For linear networks it is the posterior of the networks too. The noise, where none is given, and
    with `tune` the variances, are the best for the `NNGP` and then stay: the objective would drive
    the noise to zero. It grows as nu falls, so that rows that are held out choose nu = None.

    With `inducing` few of the rows have Gram matrices that are free. All others follow from these
    as new rows do, and log p(y | G^L) is bounded as the `NNGP`'s is, at a cost linear in rows.

    L-BFGS ends when the gradient is 1e-5 of what it was at the prior's Gram matrices, and at 1e-3
    or after 100 iterations where nu is chosen; notes tell where it ended, and of jitter.
    """

    source: ClassVar[str] = (
        "yang2023theory, section 4; rasmussen2006, eqs. (2.25) and (2.26); "
        "titsias2009, variational lower bound"
    )
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Posterior,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Posterior

    def refusal(self) -> str | None:
        if self.learner.kernel == "ntk":
            return NO_TANGENT_KERNEL
        if (sentence := refusal_of_settings(self.network, self.learner)) is not None:
            return sentence
        if (sentence := refusal_of(self.network)) is not None:
            return Elsewhere(sentence) if readers(self.network) else sentence
        hidden = len(gram_layers(self.network)) - 1
        if isinstance(self.learner.nu, tuple) and len(self.learner.nu) != hidden:
            return (
                f"nu of Posterior is {self.learner.nu}, {len(self.learner.nu)} numbers, and the "
                f"network has {hidden} hidden layers: give a number for each, or one for all."
            )
        if self.learner.prior == "network" and not is_linear(self.network):
            return Elsewhere(
                "Under a rich posterior the features of networks with nonlinearities are not "
                "Gaussian: TiltedPosterior is their limit, and DeepKernelMachine that of linear "
                "networks and of deep Gaussian processes, Posterior(prior='deep_gp')."
            )
        return None

    def check(self, problem: Problem) -> None:
        """Raises MemoryError for more rows than the Gram matrices find memory for, and EmptyCell
        for too few to choose nu on."""
        if self.learner.nu is None and (few := len(problem.x_train)) < LEAST:
            raise EmptyCell(
                f"nu is chosen on one row of {HELD_OUT}, and there are {few} rows: give a nu, or "
                f"{LEAST} rows at least."
            )
        rows, count = points_of(self.learner, problem), len(gram_layers(self.network))
        if rows is None:
            rows, what = len(problem.x_train), "rows"
        else:
            check_points(rows, problem)
            what = "inducing points"
        # history and matrices: triangles and squares of all rows, in every layer
        need = 8 * rows**2 * count * (HELD + HISTORY)
        check_free(
            need, f"The Gram matrices of {rows} {what} in {count - 1} layers", f"use fewer {what}"
        )

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Chooses what is not given, then the Gram matrices, and factorises their kernel."""
        self.check(problem)
        settled, nu = self._settled(problem), self.learner.nu
        if nu is None:
            chosen = self._choice(problem)
            *_, (_, learned) = downwards(self._learning(problem, settled), chosen.nu)
            notes = [chosen.told, *settled.notes, *_told(learned)]
        else:
            learned = self._learn(problem, settled, nu)
            notes = [*settled.notes, *_told(learned), *_unsettled(learned)]
        return _Prepared(self, settled.network, problem, learned.state, tuple(notes))

    def _choice(self, problem: Problem) -> Choice:
        """Of nu, by machines whose noise and variances are chosen on the rows that are left."""
        x, y = problem.x_train, problem.y_train
        out, rest = split(len(x))
        part = problem._replace(x_train=x[rest], y_train=y[rest])
        return choose(self._learning(part, self._settled(part)), x[out], y[out])

    def _learning(self, problem: Problem, settled: "_Settled") -> Learn:
        """As far as choosing needs it, and as the machine that is chosen stays."""
        return lambda nu, before: self._learn(
            problem, settled, nu, start=before, tolerance=ROUGH, most=ITERATIONS
        )

    def _learn(
        self, problem: Problem, settled: "_Settled", nu: float | tuple[float, ...], **how: Any
    ) -> Learned:
        y, noise, nus = problem.y_train, settled.noise, self._nus(nu)
        self._check_noise(y, noise, settled.scale, nus)
        return learn(
            settled.network, problem.x_train, y, scaling=self.scaling, nus=nus, noise=noise,
            inducing=settled.inducing, **how,
        )  # fmt: skip

    def _nus(self, nu: float | tuple[float, ...]) -> tuple[float, ...]:
        """Of each hidden layer, its `times` included."""
        hidden = gram_layers(self.network)[:-1]
        each = nu if isinstance(nu, tuple) else (nu,) * len(hidden)
        return tuple(float(one * layer.times) for one, layer in zip(each, hidden, strict=True))

    def _check_noise(self, y, noise: float, scale: float, nus: tuple[float, ...]) -> None:
        """Raises EmptyCell for a Gram matrix that collapses: nothing but noise, or nu, holds the
        directions that no target has. `scale` is the outputs' mean variance."""
        outputs = y.shape[1]
        if noise >= SILENT * scale or np.linalg.matrix_rank(y) == len(y):
            return
        for number, nu in enumerate(nus, start=1):
            if nu <= outputs:
                layer = gram_layers(self.network)[number - 1]
                raise EmptyCell(
                    f"With a noise of {noise:g} and {outputs} columns of targets the Gram "
                    f"matrix of hidden layer {number}, {layer.layers[-1]!r}, collapses at nu "
                    f"{nu / layer.times:g}: give a nu over {outputs}, or a larger noise."
                )

    def _settled(self, problem: Problem) -> "_Settled":
        """What is not given is chosen for the NNGP."""
        x, y, learner, prior = (
            problem.x_train, problem.y_train, self.learner, as_drawn(self.scaling)
        )  # fmt: skip
        if (count := points_of(learner, problem)) is not None:
            found = settle(self.network, x, y, count=count, learner=learner, scaling=prior)
            scale = float(np.mean(np.sum(found.prior.lower**2, axis=1)))
            return _Settled(found.network, found.noise, scale, found.points, found.notes)
        network, noise, notes = chosen_for_nngp(self.network, x, y, learner=learner, scaling=prior)
        scale = float(np.mean(np.diagonal(shared_kernels(network, x, scaling=prior).nngp)))
        return _Settled(network, noise, scale, None, (*all_rows(learner, problem), *notes))


class _Settled(NamedTuple):
    """The network and the noise, the outputs' mean variance, and the rows that stand for all."""

    network: AbstractLayer
    noise: float
    scale: float
    inducing: Float[np.ndarray, "m d"] | None
    notes: tuple[str, ...]


def _told(learned: Learned) -> list[str]:
    """Where the optimisation ended."""
    optimum, factor = learned.optimum, learned.state.factor
    found, notes = optimum.minimum, []
    bound = "the log evidence" if isinstance(factor, Factor) else "the bound on the log evidence"
    if all(math.isinf(nu) for nu in optimum.fixed.nus):
        notes.append("nu is infinite, so the Gram matrices are those of the prior.")
    else:
        notes.append(
            f"{found.iterations} iterations of L-BFGS brought the objective from "
            f"{-found.first:.6g}, {bound} of the NNGP, to {-found.value:.6g} and left "
            f"{found.residual:.1g} of the gradient."
        )
        apart = ", ".join(f"{value:.3g}" for value in optimum.divergences())
        conditions = ", ".join(f"{value:.1g}" for value in optimum.conditions())
        notes.append(
            f"KL divergence of each hidden layer from its prior: {apart}; condition number of its "
            f"Gram matrix: {conditions}."
        )
    for jitter in {optimum.fixed.jitter, factor.jitter} - {0.0}:
        notes.append(f"The kernels needed a jitter of {jitter:g} of their diagonal.")
    return notes


def _unsettled(learned: Learned) -> list[str]:
    """A warning where the optimisation ended early."""
    if learned.optimum.minimum.residual <= TOLERANCE:
        return []
    return [
        f"L-BFGS ended before that was {TOLERANCE:g}: give a larger nu or noise to rely on the "
        "Gram matrices."
    ]


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: DeepKernelMachine
    network: AbstractLayer
    problem: Problem
    state: DeepKernelState
    notes: tuple[str, ...]

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Bayes starts from no function, so `start` changes nothing."""
        trajectory = trajectory_of(self.state, self.problem, self._kernels())
        return Trained(self.state, trajectory, self.notes)

    def _kernels(self) -> dict[str, Float[np.ndarray, "2 q q"]]:
        """The features' kernels at the probe rows, as the prior and as the data have them."""
        probes = self.problem.probes
        prior = layer_kernels(self.network, probes, as_drawn(self.limit.scaling))
        learned = self.state.extended(probes).features
        return {
            name: np.stack([prior[i], np.asarray(learned[i])[: len(probes), : len(probes)]])
            for i, name in layer_names(self.network)
        }
