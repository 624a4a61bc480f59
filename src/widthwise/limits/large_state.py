"""The posterior of many rows: trained within given memory, and what is kept of it."""

import dataclasses

import numpy as np
from jaxtyping import Float

from widthwise.kernels import kernel_matrix
from widthwise.limits.evidence import Which
from widthwise.limits.large import System, best_noise
from widthwise.network.layer import AbstractLayer
from widthwise.resources import Resources
from widthwise.run import AbstractState, Prediction
from widthwise.scaling import AbstractScaling

GIVEN = "the data, with Gaussian noise"
ENTRIES = 2**24  # of the kernel of new rows, computed at once


@dataclasses.dataclass(frozen=True)
class LargeState(AbstractState):
    """The weights of the mean; covariances solve with the training rows' kernel anew."""

    network: AbstractLayer
    scaling: AbstractScaling
    kernel: Which
    x_train: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, "n k"]
    noise: float
    resources: Resources
    system: System | None  # which is not saved

    def __getstate__(self):
        return {**self.__dict__, "system": None}

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        value = np.empty((len(x), self.weights.shape[1]))
        rows = max(1, ENTRIES // len(self.x_train))
        parts = [slice(i, i + rows) for i in range(0, len(x), rows)]
        for part in parts:
            value[part] = self._entries(x[part], self.x_train) @ self.weights
        if not covariance:
            return Prediction(value, None, GIVEN)
        system = self.system or System(
            self.network, self.x_train, self.kernel, scaling=self.scaling, resources=self.resources
        )
        found = self._entries(x).astype(np.float64)
        for part in parts:
            cross = self._entries(x[part], self.x_train).astype(np.float64)
            solved = system.solve(cross.T, noise=self.noise).value
            for other in parts:
                found[other, part] -= self._entries(x[other], self.x_train) @ solved
        return Prediction(value, (found + found.T) / 2, GIVEN)

    def _entries(self, x1, x2=None) -> Float[np.ndarray, "m n"]:
        return kernel_matrix(
            self.network, x1, x2, which=self.kernel, precision="float32", scaling=self.scaling
        )


def large_posterior(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    kernel: Which,
    *,
    scaling: AbstractScaling,
    noise: float | None,
    resources: Resources,
) -> tuple[LargeState, list[str]]:
    """The posterior, and what to say of how it was found; noise None is chosen by the evidence."""
    system, notes = System(network, x, kernel, scaling=scaling, resources=resources), []
    if noise is None:
        noise, told = best_noise(system, y)
        notes.append(told)
    solved = system.solve(y, noise=noise)
    notes.append(
        f"{system.told}; {solved.steps} products with it left a residual of {solved.residual:.1g}."
    )
    state = LargeState(network, scaling, kernel, x, solved.value, noise, resources, system)
    return state, notes
