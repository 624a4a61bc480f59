"""What training through inducing points leaves, and its predictions."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from widthwise.kernels.rules import padded
from widthwise.limits.dkm.minibatch import Bound, Fitted, passed
from widthwise.limits.dkm.variational import PREDICTING, Outputs, draws_of, mean_probabilities
from widthwise.run import AbstractState, OutputsPrediction, Prediction, check_columns
from widthwise.solve import NotSolvable, blocks_of, float64

BLOCK = 128  # rows that are carried through the layers at once
NEGATIVE = 1e-5  # of the largest variance: below zero by less is rounding
GIVEN = "the data, and the inducing points and Gram matrices that the data taught"


@dataclasses.dataclass(frozen=True)
class InducingState(AbstractState):
    """The bound that was maximised, where it was largest, and its mean estimate in each epoch."""

    bound: Bound
    fitted: Fitted
    bounds: tuple[float, ...]

    def predict(
        self, x: Float[np.ndarray, "m d"], covariance: bool
    ) -> Prediction | OutputsPrediction:
        """Mean outputs, or with a categorical likelihood mean chances less 1 / k.

        The covariance is known for a Gaussian likelihood: among rows for networks of vectors; of
        images, whose covariances among rows are not kept, that of the outputs of each, which are
        independent and have one variance."""
        if covariance and self.bound.noise is not None and self.bound.machine.vectors:
            found = self._passed(x, True)
            among = np.asarray(found.among)[: len(x), : len(x)]
            return Prediction(np.asarray(found.outputs.mean)[: len(x)], among, GIVEN)
        outputs = self.outputs(x)
        mean, variance = map(np.asarray, outputs)
        if self.bound.noise is None:
            return Prediction(self._chances(outputs) - 1 / mean.shape[1], None, GIVEN)
        if not covariance:
            return Prediction(mean, None, GIVEN)
        return OutputsPrediction(mean, variance[:, None, None] * np.eye(mean.shape[1]), GIVEN)

    def outputs(self, x: Float[np.ndarray, "m d"]) -> Outputs:
        """The marginal posterior of each row's outputs, without noise: mean (m, k) and the variance
        (m,) that all of them have.

        Raises ValueError, naming the layer, where a variance is below zero.
        """
        if not len(x):
            none = np.empty((0, self.fitted.mean.shape[1]))
            return Outputs(none, none[:, 0])  # type: ignore[arg-type]
        rows = list(blocks_of(len(x), BLOCK))
        parts = [self._passed(x[part], False).outputs for part in rows]
        sizes = [len(x[part]) for part in rows]
        cut = [[np.asarray(y)[:size] for y in one] for one, size in zip(parts, sizes, strict=True)]
        mean, variance = (np.concatenate(own) for own in zip(*cut, strict=True))
        return Outputs(mean, variance)  # type: ignore[arg-type]

    def features(self, x: Float[np.ndarray, "m d"]) -> tuple[Float[np.ndarray, "m m"], ...]:
        """The features' kernels behind each layer of a network of vectors."""
        found = self._passed(x, True)
        return tuple(np.asarray(one)[: len(x), : len(x)] for one in found.features)

    def _chances(self, outputs: Outputs) -> Float[np.ndarray, "m k"]:
        """Mean softmax of outputs, by the same draws for every row."""
        k, found = outputs.mean.shape[1], [np.empty((0, outputs.mean.shape[1]))]
        with float64():
            draws = draws_of(jax.random.key(0), PREDICTING, (1, k), np.float64)
            for part in blocks_of(len(outputs.mean), BLOCK):
                some = Outputs(*(jnp.asarray(y[part]) for y in outputs))
                found.append(np.asarray(mean_probabilities(some, draws)))
        return np.concatenate(found)

    def _passed(self, x: Float[np.ndarray, "m d"], whole: bool) -> "_Found":
        check_columns(x, self.bound.machine.columns)
        with float64():
            rows = padded(x) if whole else block_of(x)
            found = _pass(self.bound, self.fitted, rows, whole)
        for name, least in found.least.items():
            if not float(least) > -NEGATIVE:
                raise ValueError(
                    f"The variance of a row is {float(least):.1g} of the largest at {name}, whose "
                    "Gram matrix is nearly singular: give fewer inducing points, a larger nu, or a "
                    "smaller lr."
                )
        return found


def block_of(x: Float[np.ndarray, "m d"]) -> Float[Array, "b d"]:
    """A block of rows, the last of them repeated: one compiled shape serves all."""
    return jnp.asarray(np.pad(x, ((0, BLOCK - len(x)), (0, 0)), mode="edge"))


class _Found(NamedTuple):
    """Of some rows: arrays of JAX."""

    outputs: Outputs
    least: dict[str, Any]
    among: Any
    features: list[Any]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _pass(bound: Bound, fitted: Any, x: Float[Array, "m d"], whole: bool) -> _Found:
    found = passed(bound, fitted, x, whole=whole)
    features = [at.among.xy for at in found.behind if at.among is not None]
    return _Found(found.outputs, found.least, found.among, features)


def check_start(bound: Bound, fitted: Fitted, x: Float[np.ndarray, "n d"]) -> None:
    """Raises NotSolvable, naming the layer, where the covariance of the inducing variables has no
    factor before training has begun."""
    found = _pass(bound, fitted, block_of(x[:1]), False)
    for name, least in found.least.items():
        if not np.isfinite(float(least)):
            raise NotSolvable(
                f"The covariance of the inducing points is singular at {name}: give fewer of them."
            )
