"""The posterior of many rows: trained within given memory, and what is kept of it."""

import dataclasses

import numpy as np
from jaxtyping import Float

from widthwise.limits.evidence import Which
from widthwise.limits.large import System, best_noise
from widthwise.network.layer import AbstractLayer
from widthwise.resources import Resources
from widthwise.run import AbstractState, Prediction
from widthwise.scaling import AbstractScaling
from widthwise.solve import blocks_of

GIVEN = "the data, with Gaussian noise"
ENTRIES = 2**24  # of the kernel of new rows, computed at once


@dataclasses.dataclass(frozen=True)
class LargeState(AbstractState):
    """The weights of the mean; covariances solve with the training rows' kernel anew, which is not
    saved."""

    system: System
    weights: Float[np.ndarray, "n k"]
    noise: float

    @property
    def network(self) -> AbstractLayer:
        return self.system.network

    @property
    def scaling(self) -> AbstractScaling:
        return self.system.scaling

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        system, known = self.system, self.system.x
        value = np.empty((len(x), self.weights.shape[1]))
        parts = blocks_of(len(x), max(1, ENTRIES // len(known)))
        for part in parts:
            value[part] = system.entries(x[part], known) @ self.weights
        if not covariance:
            return Prediction(value, None, GIVEN)
        found = system.entries(x).astype(np.float64)
        for part in parts:
            cross = system.entries(x[part], known).astype(np.float64)
            solved = system.solve(cross.T, noise=self.noise).value
            for other in parts:
                found[other, part] -= system.entries(x[other], known) @ solved
        return Prediction(value, (found + found.T) / 2, GIVEN)


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
    return LargeState(system, solved.value, noise), notes
