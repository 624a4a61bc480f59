"""The posterior of a linear finite network, exact: a mixture of Gaussian processes."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.features import gram_matrices
from widthwise.finite.deep_linear.one_output import ScaleMixture, scale_mixture
from widthwise.finite.deep_linear.several_outputs import OutputsMixture, outputs_mixture
from widthwise.finite.instance import FiniteNetwork
from widthwise.finite.posterior.trajectory import trajectory_of
from widthwise.kernels.matrix import kernel_matrix, layer_kernels
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.names import layer_names
from widthwise.problem import Problem
from widthwise.run import AbstractState, OutputsPrediction, Prediction, Trajectory, check_columns
from widthwise.solve import blocks_of

BLOCK = 4096  # new rows whose kernel is held at once


def exact_widths(network: AbstractLayer, width: int) -> tuple[int, ...] | None:
    """The hidden layers' widths, where a network is a product of weight matrices whose posterior is
    known as a mixture; None elsewhere.

    >>> exact_widths(Dense() >> Dense(times=2) >> Readout(), 8)
    (8, 16)
    """
    found = []
    for layer in network.sequence:
        if isinstance(layer, Dense | Readout):
            if not float(layer.bias_variance) == 0:  # type: ignore[arg-type]
                return None
            if isinstance(layer, Dense):
                found.append(layer.times * width)
        elif not isinstance(layer, Identity):
            return None
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class MixtureState(AbstractState):
    """A deep linear network's mixture, and the training rows that its kernel reads."""

    source: ClassVar[str] = (
        "hanin2023, evidence and posterior without noise; "
        "bassetti2024, integral representation of the prior"
    )
    net: FiniteNetwork
    mixture: ScaleMixture | OutputsMixture
    x_train: Float[np.ndarray, "n d"]
    noise: float

    @property
    def log_evidence(self) -> float:
        """log p(y), over all weights of networks of this width."""
        return self.mixture.log_evidence

    def predict(
        self, x: Float[np.ndarray, "m d"], covariance: bool
    ) -> Prediction | OutputsPrediction:
        """With several outputs, the covariance between them at each row: the hidden layers that
        they share make them depend on each other."""
        check_columns(x, self.x_train.shape[1])
        mixture = self.mixture
        if covariance and isinstance(mixture, ScaleMixture):
            return mixture.predict(self.kernel(x, self.x_train), self.kernel(x, x))
        parts = [x[part] for part in blocks_of(len(x), BLOCK)] or [x]
        found: list[Any] = []
        for part in parts:
            own = self._variances(part) if covariance else None
            found.append(mixture.predict(self.kernel(part, self.x_train), own))
        first = found[0]
        value = np.concatenate([one.value for one in found])
        square = np.concatenate([one.covariance for one in found]) if covariance else None
        return first._replace(value=value, covariance=square)

    def kernel(
        self, x1: Float[np.ndarray, "n d"], x2: Float[np.ndarray, "m d"]
    ) -> Float[np.ndarray, "n m"]:
        """The prior's covariance of an output."""
        if not len(x1):
            return np.zeros((0, len(x2)))
        net = self.net
        return kernel_matrix(
            net.network, x1, x2, which="nngp", scaling=net.scaling, width=net.width
        )

    def _variances(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """A linear network's kernel is a number times that of the rows."""
        scale = self.kernel(np.eye(1, x.shape[1]), np.eye(1, x.shape[1])).item()
        return scale * np.sum(x**2, axis=1)


def mixture_posterior(
    net: FiniteNetwork, problem: Problem, *, noise: float, seed: int
) -> tuple[MixtureState, Trajectory, tuple[str, ...]]:
    """State, trajectory and notes of a linear network's posterior.

    One output: exact, by quadrature, and the same for every seed. Several outputs: weighted draws
    of their covariance. Features' kernels are the prior's mean and the posterior's.

    Raises ValueError where draws do not reach the posterior.

    Source: hanin2023, evidence and posterior without noise; bassetti2024, integral representation
    of the prior.
    """
    widths = exact_widths(net.network, net.width)
    assert widths is not None
    x, y = problem.x_train, problem.y_train
    prior = kernel_matrix(net.network, x, which="nngp", scaling=net.scaling, width=net.width)
    if y.shape[1] == 1:
        mixture = scale_mixture(prior, y, widths, noise)
        notes = [
            f"The log evidence of width {net.width} is {mixture.log_evidence:.6g}; the posterior "
            "is exact, and the same for every seed."
        ]
    else:
        mixture = outputs_mixture(prior, y, widths, noise, seed=seed)
        draws = mixture.draws
        notes = [
            f"The log evidence of width {net.width} is {draws.log_evidence:.6g} ± "
            f"{draws.standard_error:.1g}, of {len(draws.weights)} weighted draws of the outputs' "
            f"covariance, which are worth {draws.effective:.0f}."
        ]
    state = MixtureState(net, mixture, x, float(noise))
    kernels = _kernels(state, widths, problem.probes)
    return state, trajectory_of(state, problem, kernels), tuple(notes)


def _kernels(
    state: MixtureState, widths: tuple[int, ...], probes: Float[np.ndarray, "q d"]
) -> dict[str, Float[np.ndarray, "2 q q"]]:
    """The features' kernels as the prior and as the posterior have them in the mean."""
    net = state.net
    cross, prior = state.kernel(probes, state.x_train), state.kernel(probes, probes)
    taught = gram_matrices(state.mixture, widths, cross, prior)
    before = layer_kernels(net.network, probes, net.scaling)
    # behind so many layers of weights, in units of the output's kernel
    behind = np.cumsum([isinstance(layer, Dense) for layer in net.network.sequence])
    found = {}
    for i, name in layer_names(net.network):
        unit = np.trace(before[i]) / np.trace(prior)
        after = unit * taught[behind[i] - 1] if behind[i] else before[i]
        found[name] = np.stack([before[i], after])
    return found
