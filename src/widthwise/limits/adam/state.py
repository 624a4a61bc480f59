"""A trained Adam limit: it draws its neurons again to predict."""

import dataclasses

import numpy as np
from jaxtyping import Float

from widthwise.limits.adam.half import Moved, Neurons, taken
from widthwise.limits.adam.pace import Left
from widthwise.limits.tangent import FROM_START, FROM_ZERO
from widthwise.run import AbstractState, Prediction, check_columns


@dataclasses.dataclass(frozen=True)
class AdamState(AbstractState):
    """f(x) = f_0(x) - what the steps of both halves have taken, in the mean, each as much as weight
    decay has left of it."""

    halves: tuple[tuple[Neurons, Moved], ...]
    columns: int
    start: object | None  # the initial function, rows -> outputs
    left: Left

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, self.columns)
        both = [taken(neurons, (one,), x)[0] for neurons, one in self.halves]
        value = -self.left.change * np.mean(both, axis=0)
        if self.start is None:
            return Prediction(value, None, FROM_ZERO)
        value += self.left.function * self.start(x)  # type: ignore[operator]
        return Prediction(value, None, FROM_START)
