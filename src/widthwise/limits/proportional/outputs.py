"""Networks as wide as there are data: the kernel's scale, or its covariance of outputs, adapts."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Num

from widthwise.limits.proportional.action import Order, least_action
from widthwise.run import OutputsPrediction
from widthwise.solve.given import Widths, given_cross, given_shape, given_widths
from widthwise.solve.turned import Turned

GIVEN = "the data, with Gaussian noise, at the minimum of the proportional limit's action"


@dataclasses.dataclass(frozen=True)
class Proportional:
    """A Gaussian process of covariance Q x K, with the order parameter Q at its minimum.

    >>> y = np.sqrt(2) * np.ones((10, 1))
    >>> proportional(np.eye(10), y, (20,)).order.round(5).tolist()
    [[1.28078]]
    """

    source: ClassVar[str] = "li2021, kernel renormalization; pacelli2023, effective action"
    problem: Turned
    order: Order
    action: float

    @property
    def log_evidence(self) -> float:
        """log p(y) to leading order: what is left out stays bounded as widths and data grow."""
        return -0.5 * (self.action + self.problem.targets.size * math.log(2 * math.pi))

    def predict(
        self,
        cross: Num[Array | np.ndarray, "..."],
        variance: Num[Array | np.ndarray, "..."] | None = None,
    ) -> OutputsPrediction:
        """Mean (m, k) and, at each new row, covariance (m, k, k) of the function's outputs.

        >>> found = proportional(np.eye(3), np.ones((3, 1)), (math.inf,), noise=1.0)
        >>> found.predict(np.eye(3)[:1]).value.round(6).tolist()
        [[0.5]]

        Args:
            cross: kernel (m, n) of the new rows and the training rows.
            variance: kernel (m,) of each new row with itself; without it, only the mean is found.

        Raises ValueError for shapes that do not fit.
        """
        problem = self.problem
        turned = given_cross(cross, len(problem.values)) @ problem.vectors
        scales, frame = np.linalg.eigh(self.order)
        shrinks = 1 / (problem.values[:, None] + problem.noise / scales)
        value = turned @ (shrinks * (problem.targets @ frame)) @ frame.T
        if variance is None:
            return OutputsPrediction(value, None, GIVEN)
        variance = given_shape("variance", variance, (len(turned),))
        left = scales * (variance[:, None] - turned**2 @ shrinks)
        return OutputsPrediction(value, np.einsum("id,md,jd->mij", frame, left, frame), GIVEN)


def proportional(
    kernel: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "..."],
    widths: Widths,
    noise: float = 0.0,
) -> Proportional:
    """The posterior of a deep linear network in the limit of widths that grow with the data.

    >>> y = np.array([[1.0, -1.0], [2.0, -2.0], [1.0, 1.0]])
    >>> proportional(np.eye(3), y, (30, 30), noise=0.3).order.round(3).tolist()
    [[1.068, -0.136], [-0.136, 1.068]]

    Q minimises sum_l N_l (tr Q_l - log |Q_l|) + log |Q x K + noise| + y^T (Q x K + noise)^-1 y,
    where Q is the product of the layers' Q_l: (1, 1) for one output, (k, k) for k. Errors at width
    N are of order 1 / N. `outputs_mixture` and `scale_mixture` of `finite.deep_linear` are exact
    at every width.

    For networks with nonlinearities, K being their NNGP kernel, this is a heuristic: it takes their
    features for Gaussian ones, and is not exact in any limit that is known.

    Args:
        kernel: (n, n), the infinitely wide network's NNGP kernel of the training rows.
        targets: (n, k).
        widths: of the hidden layers, in any order; infinite ones change nothing.
        noise: variance of the noise on the targets.

    Raises ValueError for shapes and widths that do not fit, for a singular kernel without noise,
    and where the minimum is at a singular Q.

    Source: li2021, kernel renormalization; pacelli2023, effective action.
    """
    problem, finite = Turned.of(kernel, targets, noise), given_widths(widths)
    outputs = problem.targets.shape[1]
    if (
        problem.noise == 0
        and len(problem.values) >= min(finite, default=math.inf)
        and (np.linalg.matrix_rank(problem.targets) < outputs)
    ):
        raise ValueError(
            f"The {outputs} columns of targets depend on each other and noise is 0: give noise "
            "above 0."
        )
    found = least_action(lambda order: _data(problem, order), finite, outputs)
    return Proportional(problem, found.order, found.action)


def _data(problem: Turned, order: Order) -> tuple[float, Order]:
    """log |Q x K + noise| + y^T (Q x K + noise)^-1 y, and its gradient in Q."""
    scales, frame = np.linalg.eigh(order)
    scales, values = np.maximum(scales, np.finfo(float).tiny), problem.values[:, None]
    levels = scales * values + problem.noise
    turned = problem.targets @ frame
    solved = turned / levels
    slope = np.diag(np.sum(values / levels, axis=0)) - (solved * values).T @ solved
    return float(np.sum(np.log(levels) + turned * solved)), frame @ slope @ frame.T
