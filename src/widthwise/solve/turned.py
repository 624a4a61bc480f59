"""A regression in the eigenvectors of its kernel."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.solve.given import given_noise, given_problem
from widthwise.solve.spectrum import Spectrum


class Turned(NamedTuple):
    """Kernel, targets and noise: all that an evidence depends on.

    >>> Turned.of(np.diag([4.0, 1.0]), np.array([[1.0], [2.0]]), 0.0).values.tolist()
    [1.0, 4.0]
    """

    vectors: Float[np.ndarray, "n n"]
    values: Float[np.ndarray, " n"]
    targets: Float[np.ndarray, "n k"]  # their coordinates
    noise: float

    @classmethod
    def of(cls, kernel, targets, noise: float) -> "Turned":
        """Raises ValueError for a kernel that gives targets without noise no density."""
        kernel, targets = given_problem(kernel, targets)
        noise, spectrum = given_noise(noise), Spectrum.of(kernel)
        values, vectors = spectrum
        if noise == 0 and values[0] <= len(kernel) * np.finfo(float).eps * values[-1]:
            raise ValueError(
                f"kernel of {len(kernel)} rows is singular and noise is 0: give noise above 0, or "
                "as many rows as inputs at most, none of them twice."
            )
        return cls(vectors, values, vectors.T @ targets, noise)

    def log_levels(self, log_scale: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s n"]:
        """Logarithms of the variances of the coordinates, for kernels Q K, of log Q."""
        with np.errstate(divide="ignore"):
            values, noise = np.log(self.values), np.log(self.noise)
        return np.logaddexp(log_scale[..., None] + values, noise)
