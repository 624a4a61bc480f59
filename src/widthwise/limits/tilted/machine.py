"""The rich posterior of networks: units whose law is a tilted Gaussian, not a Gaussian."""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.kernels.matrix import layer_kernels
from widthwise.kernels.rules import padded
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
from widthwise.limits.dkm.full import posed as gram_posed
from widthwise.limits.dkm.layers import (
    NO_NU,
    NO_TANGENT_KERNEL,
    GramLayer,
    as_drawn,
    gram_layers,
    is_linear,
)
from widthwise.limits.dkm.prior import chosen_for_nngp
from widthwise.limits.nngp import trajectory_of
from widthwise.limits.tilted.extend import Extension, Known, check_variances, extend
from widthwise.limits.tilted.law import on_grid
from widthwise.limits.tilted.saddle import Hidden, Posed
from widthwise.limits.tilted.settle import Saddle, settled
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.names import layer_names
from widthwise.network.pointwise import AbstractNonlinearity, AbstractQuadrature
from widthwise.problem import Problem
from widthwise.run import AbstractState, Prediction, check_columns
from widthwise.scaling import AbstractScaling
from widthwise.solve import Factor, blocks_of, cholesky, float64

ROWS = 200  # of the training set, at most: a round costs their square times the number of chains
JUMP = 1e-8  # on both sides of a point, over which a function without jumps changes by little
BLOCK = 256  # new rows that are carried through the layers at once
GIVEN = "the data, with Gaussian noise, and the laws of units that the data taught"


class TiltedPosterior(AbstractLimit):
    """The posterior of wide networks whose features learn: laws q of one unit that maximise
    log p(y | G^L) - sum of nu KL(q^l | N(0, K(G^l-1))), G^l = E[phi phi^T] under q^l.

    >>> net = Dense() >> Tanh() >> Readout()
    >>> TiltedPosterior(net, MuP(), Posterior(noise=0.1, nu=2.0)).regime
    'rich'

    Networks whose hidden layers have N nu times `times` units and whose outputs are N independent
    copies, each with the targets, as N grows. Pre-activations f of a unit at the training rows
    have density N(f; 0, K) exp(-phi(f)^T Lambda phi(f) / 2), which is not Gaussian, so that this
    is not the `DeepKernelMachine` with the same kernels: Gram matrices may differ by a tenth and
    more.
    Lambda of the last hidden layer is (D C^-1 - C^-1 Y Y^T C^-1) w / nu, with D outputs, readout
    variance w and C = K(G) + noise I, that of others (nu' K^-1 - K^-1 E[f f^T] K^-1) w / nu with
    K, f, nu' and w of the layer behind. With nu = inf it is the `NNGP`.

    Laws of two dimensions at most are summed over a grid; others are sampled by Hamiltonian
    trajectories of many chains at once, while Lambda goes to where it agrees with them. Notes tell
    the standard errors of Gram matrices and fit. Noise and variances that are not given are the
    best for the `NNGP`.

    Where phi has no bound, a law ends where K^-1 + Lambda, taken along what phi can reach, is no
    longer positive: where the data want more, a few units take it all and there is no law of one
    unit. That is found out, and refused.
    """

    source: ClassVar[str] = "yang2023theory, section 4; neal2011, Hamiltonian dynamics"
    regime: ClassVar[str] = "rich"
    learners: ClassVar[tuple[type[AbstractLearner], ...]] = (Posterior,)
    follows_start: ClassVar[bool] = False
    network: AbstractLayer
    scaling: AbstractScaling
    learner: Posterior

    def refusal(self) -> str | None:
        learner, name = self.learner, type(self).__name__
        if learner.prior == "deep_gp":
            return Elsewhere(f"{name} is for networks: DeepKernelMachine serves prior='deep_gp'.")
        if learner.kernel == "ntk":
            return NO_TANGENT_KERNEL
        if (sentence := _refusal_of(self.network)) is not None:
            return sentence
        if learner.likelihood != "gaussian":
            return (
                f"{name} knows Gaussian noise only: use likelihood='gaussian', or prior='deep_gp'."
            )
        if learner.inducing is not None:
            return f"{name} has no inducing points: leave inducing out, or use prior='deep_gp'."
        if learner.nu is None:
            return NO_NU
        return None

    def check(self, problem: Problem) -> None:
        """Raises EmptyCell for more rows than chains can serve, and for a nu that does not fit."""
        rows = len(problem.x_train)
        if rows > ROWS:
            raise EmptyCell(
                f"TiltedPosterior samples the joint law of all rows, at most {ROWS}, and {rows} "
                "came: use fewer, or Posterior(prior='deep_gp')."
            )
        _nus(self.learner, gram_layers(self.network))

    def prepare(self, problem: Problem, *, order: int, logs: int) -> AbstractPrepared:
        """Chooses what is not given."""
        self.check(problem)
        network, noise, notes = chosen_for_nngp(
            self.network, problem.x_train, problem.y_train, learner=self.learner,
            scaling=as_drawn(self.scaling),
        )  # fmt: skip
        return _Prepared(self, network, noise, problem, tuple(notes))


def _refusal_of(network: AbstractLayer) -> str | None:
    """Why a network is not one of Dense and functions of one number, in a sentence."""
    if (sentence := network.refusal()) is not None:
        return sentence
    if is_linear(network):
        return Elsewhere(
            "TiltedPosterior is for nonlinearities: DeepKernelMachine serves linear networks."
        )
    for layer in network.sequence:
        if not isinstance(layer, Dense | Readout | Identity | AbstractNonlinearity):
            return (
                "TiltedPosterior goes through chains of Dense and functions of one number, and the "
                f"network has {layer!r}: leave it out, or use NTK() for the Gaussian process."
            )
        if isinstance(layer, AbstractNonlinearity) and _jumps(layer):
            return (
                f"Trajectories follow slopes, and {layer!r} jumps: use a function without jumps, "
                "such as Erf() or Tanh()."
            )
    if not any(isinstance(layer, Dense) for layer in network.sequence):
        return "The network has no hidden layer whose features could learn: put Dense() in front."
    return None


def _jumps(function: AbstractNonlinearity) -> bool:
    """Whether it jumps at zero or where it says that it is not smooth."""
    kinks = function.kinks if isinstance(function, AbstractQuadrature) else ()
    edges = np.array([0.0, *kinks])
    with float64():
        above, below = (np.asarray(function(jnp.asarray(edges + way))) for way in (JUMP, -JUMP))
    return bool(np.any(np.abs(above - below) > math.sqrt(JUMP)))


def _nus(learner: Posterior, layers: tuple[GramLayer, ...]) -> tuple[float, ...]:
    """The nu of each hidden layer, in units of the copies of outputs. Raises EmptyCell."""
    count = len(layers) - 1
    assert learner.nu is not None  # `refusal` has seen to it
    given = learner.nu if isinstance(learner.nu, tuple) else (learner.nu,) * count
    if len(given) != count:
        raise EmptyCell(
            f"nu has {len(given)} numbers and the network {count} hidden layers: give one for each."
        )
    if 0 in given:
        raise EmptyCell(
            "At nu 0 the prior weighs nothing and the law of a unit has no form: give nu over 0."
        )
    return tuple(float(nu * layer.times) for nu, layer in zip(given, layers, strict=False))


def _told(hidden: tuple[Hidden, ...], saddle: Saddle, factor: Factor) -> list[str]:
    """How well the laws agree with each other."""
    notes, standing = [], saddle.standing
    if all(math.isinf(layer.nu) for layer in hidden):
        notes.append("nu is infinite, so units have the prior's law.")
    elif all(layer.exact or math.isinf(layer.nu) for layer in hidden):
        left = max(saddle.left)
        notes.append(
            f"{standing.rounds} rounds left {left:.1g} of the laws' disagreement, on grids."
        )
    else:
        errors = ", ".join(f"{100 * error:.2g} %" for error in saddle.errors)
        notes.append(
            f"{standing.rounds} rounds of {standing.chains} chains: the standard error of the Gram "
            f"matrix of each hidden layer is {errors} of its norm, and of the fit to training rows "
            f"{saddle.fit_error:.2g}, root mean square."
        )
    if not standing.rests:
        notes.append(
            "The laws of the hidden layers had not come to rest: give a larger nu or noise to rely "
            "on them."
        )
    if factor.jitter:
        notes.append(f"The kernels needed a jitter of {factor.jitter:g} of their diagonal.")
    return notes


@dataclasses.dataclass(frozen=True)
class _Prepared(AbstractPrepared):
    limit: TiltedPosterior
    network: AbstractLayer
    noise: float
    problem: Problem
    notes: tuple[str, ...]

    def train(self, start: Start | None = None, work: Work = UNKEPT) -> Trained:
        """Brings the laws of all layers to agree. Bayes starts from no function, so `start` changes
        nothing."""
        state, told = self._settled(work.advance)
        trajectory = trajectory_of(state, self.problem, self._kernels(state))
        return Trained(state, trajectory, (*self.notes, *told))

    def _settled(self, advance: Callable[[float], None]) -> tuple["TiltedState", list[str]]:
        x, y, noise = self.problem.x_train, self.problem.y_train, self.noise
        layers, scaling = gram_layers(self.network), self.limit.scaling
        nus = _nus(self.limit.learner, layers)
        fixed = gram_posed(self.network, x, y, scaling=scaling, nus=nus, noise=noise)
        affine = tuple((own[-1].weight.variance, own[-1].bias.variance) for own in fixed.own[1:])
        ranks = (fixed.root.shape[1], *(len(x),) * (len(nus) - 1))
        hidden = tuple(
            Hidden(layer.layers[:-1], nu, on_grid(rank, len(x)))
            for layer, nu, rank in zip(layers[1:], nus, ranks, strict=True)
        )
        first = np.asarray(fixed.first.xy)
        saddle = settled(hidden, Posed(first, fixed.root, affine, y, noise), advance=advance)
        weight, bias = affine[-1]
        kernel = weight * saddle.laws[-1].gram + bias
        factor = cholesky(kernel + noise * np.eye(len(y)))
        known = Known(fixed.own[0], x, saddle.laws, affine)
        state = TiltedState(layers, hidden, known, factor.solve(y), factor, noise)
        return state, _told(hidden, saddle, factor)

    def _kernels(self, state: "TiltedState") -> dict[str, Float[np.ndarray, "2 q q"]]:
        """The features' kernels at the probe rows, as the prior and as the data have them."""
        probes = self.problem.probes
        prior = layer_kernels(self.network, probes, as_drawn(self.limit.scaling))
        learned = state.extended(probes, True).features
        found, number = {}, -1
        names = dict(layer_names(self.network))
        for i, layer in enumerate(self.network.sequence):
            number += isinstance(layer, Dense)
            if i in names:
                own = np.asarray(learned[number])[: len(probes), : len(probes)]
                found[names[i]] = np.stack([prior[i], own])
        return found


@dataclasses.dataclass(frozen=True)
class TiltedState(AbstractState):
    """The laws of the hidden layers, the factorised kernel that they give, the mean's weights."""

    layers: tuple[GramLayer, ...]
    hidden: tuple[Hidden, ...]
    known: Known
    weights: Float[np.ndarray, "n k"]
    factor: Factor
    noise: float

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, self.known.x.shape[1])
        if not covariance:
            value = np.empty((len(x), self.weights.shape[1]))
            for part in blocks_of(len(x), BLOCK):
                cross = np.asarray(self.extended(x[part], False).output.cross)
                value[part] = cross[: len(x[part])] @ self.weights
            return Prediction(value, None, GIVEN)
        found = self.extended(x, True).output
        cross = np.asarray(found.cross)[: len(x)]
        half = self.factor.half(cross.T)
        among = np.asarray(found.among)[: len(x), : len(x)] - half.T @ half
        return Prediction(cross @ self.weights, among, GIVEN)

    def extended(self, x: Float[np.ndarray, "m d"], among: bool) -> Extension:
        """New rows, and copies of the last up to a power of two, carried through all layers."""
        with float64():
            found = extend(self.layers[0], self.hidden, self.known, padded(x), among)
        check_variances(self.layers, found)
        return found
