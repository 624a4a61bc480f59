"""The particles of a mean-field limit: neurons of every layer, trained by gradient descent."""

import functools
from collections.abc import Callable
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.limits.mean_field.matrix import Link, Matrix, Pace
from widthwise.limits.mean_field.samples import AbstractSamples, Block
from widthwise.limits.mean_field.sites import Site, Sites, Tensor
from widthwise.solve import float64

CHUNK = 256  # rows that are carried at once


class Layers(NamedTuple):
    """A network of particles as it stands: carries any rows from inputs to outputs."""

    sites: tuple[Site, ...]
    links: tuple[Link, ...]
    readout: Block
    weight: float  # of a sample in a mean over the last layer
    bias: Float[np.ndarray, " k"]

    def outputs(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """A row's outputs do not depend on the rows beside it."""
        found = []
        for i in range(0, max(len(x), 1), CHUNK):
            last = self.features(x[i : i + CHUNK])[-1]
            found.append(last @ self.readout.T * self.weight + self.bias)
        return np.concatenate(found).astype(np.float64)

    def features(self, x: Float[np.ndarray, "m d"], *, together: bool = False) -> list[Block]:
        """Features of each hidden layer; see `Link.carry` for `together`."""
        found = []
        x = x.astype(self.readout.dtype)
        for site, link in zip(self.sites, self.links, strict=True):
            x = activate(site, link.carry(x, together))[0]
            found.append(x)
        return found


def activate(site: Site, h: Block) -> tuple[Block, Block | None]:
    """A site's features and their slopes; slopes None are 1."""
    if site.activation is None:
        return h, None
    with float64():
        features, slopes = _activate(site.activation, h)
    return np.asarray(features), np.asarray(slopes)


@functools.partial(jax.jit, static_argnums=0)
def _activate(activation, h):
    return jax.jvp(activation, (h,), (jnp.ones_like(h),))


@final
class _Weights:
    """An array that steps move, and how it was drawn."""

    def __init__(self, tensor: Tensor, normal: np.ndarray):
        self._tensor = tensor
        self.now = self.drawn = tensor.std * normal
        self._velocity: np.ndarray | float = 0.0

    def step(self, pace: Pace, gradient: np.ndarray) -> None:
        self._velocity = pace.momentum * self._velocity + gradient
        shrink = 1.0 - pace.lr * pace.decay if self._tensor.trained else 1.0
        self.now = shrink * self.now - pace.lr * self._tensor.step * self._velocity


@final
class Particles:
    """Neurons of every layer while they are trained.

    Args:
        sites: the layers' constants.
        spaces: the space of vectors of each hidden layer.
        x: training rows.
        outputs: number of outputs.
        spares: Gaussians that each layer keeps for rows outside the training rows' span.
        tolerance: share of a row's mean square that its expansion may leave out.
    """

    def __init__(
        self, sites: Sites, spaces: tuple[AbstractSamples, ...], x: Float[np.ndarray, "n d"],
        outputs: int, spares: int, tolerance: float,
    ):  # fmt: skip
        self._sites, self._spaces, dtype = sites, spaces, spaces[0].dtype
        self._spares = [space.stack(space.fresh(spares)).rows for space in spaces]
        self._biases = [
            _Weights(site.bias, space.stack(space.fresh(1)).rows[0])
            for site, space in zip(sites.hidden, spaces, strict=True)
        ]
        self._span = _span(x).astype(dtype)
        self._inputs = x.astype(dtype) @ self._span.T
        images = spaces[0].stack(spaces[0].fresh(len(self._span))).rows
        self._first = _Weights(sites.hidden[0].weight, images)
        self._matrices = [
            Matrix(before, after, site.weight, tolerance)
            for before, after, site in zip(spaces, spaces[1:], sites.hidden[1:], strict=False)
        ]
        last = spaces[-1]
        self._readout = _Weights(sites.weight, last.stack(last.fresh(outputs)).rows)
        self._bias = _Weights(sites.bias, np.zeros(outputs, dtype))
        self._kept = 1.0  # what weight decay leaves of the first layer's draw
        # The limit starts from the zero function; what samples make of it is taken off.
        features = self._forward(slice(None))[0]
        self._start = last.inner(features[-1], self._readout.now)

    def step(
        self, rows: slice | np.ndarray, slope_of: Callable[[np.ndarray], np.ndarray], pace: Pace
    ) -> None:
        """One step on these rows; `slope_of` makes of outputs their slopes of the loss.

        Raises FloatingPointError where something is no longer finite.
        """
        features, slopes = self._forward(rows)
        found = self._spaces[-1].inner(features[-1], self._readout.now)
        out = found - self._start[rows] + self._bias.now
        if not np.isfinite(out).all():
            raise FloatingPointError
        force = (slope_of(out) / len(out)).astype(out.dtype)
        gradient = force @ self._readout.now
        self._readout.step(pace, force.T @ features[-1])
        self._bias.step(pace, force.sum(axis=0))
        for i in reversed(range(len(self._spaces))):
            slope = slopes[i]
            gradient = gradient if slope is None else gradient * slope
            self._biases[i].step(pace, gradient.sum(axis=0))
            if i == 0:
                self._first.step(pace, self._inputs[rows].T @ gradient)
            else:
                matrix = self._matrices[i - 1]
                gradient = matrix.backward(gradient)
                matrix.step(pace)
        if self._sites.hidden[0].weight.trained:
            self._kept *= 1.0 - pace.lr * pace.decay

    def _forward(self, rows) -> tuple[list[Block], list[Block | None]]:
        features, slopes = [], []
        for i, (site, bias) in enumerate(zip(self._sites.hidden, self._biases, strict=True)):
            if i == 0:
                h = self._inputs[rows] @ self._first.now
            else:
                h = self._matrices[i - 1].forward(features[-1])
            found, slope = activate(site, h + bias.now)
            features.append(found)
            slopes.append(slope)
        return features, slopes

    def layers(self) -> tuple[Layers, Layers]:
        """The network as it stands, and as it was drawn."""
        none = self._first.now[:0], self._span[:0], self._first.now[:0, : len(self._span)]
        std = self._sites.hidden[0].weight.std
        now = Link(
            1.0, self._span, self._first.now, 1.0, *none, self._spares[0], std * self._kept,
            self._biases[0].now,
        )  # fmt: skip
        drawn = now._replace(images=self._first.drawn, spare_gain=std, bias=self._biases[0].drawn)
        pairs = [
            matrix.links(spares, bias.now, bias.drawn)
            for matrix, spares, bias in zip(
                self._matrices, self._spares[1:], self._biases[1:], strict=True
            )
        ]
        sites, weight = self._sites.hidden, self._spaces[-1].weight
        return (
            Layers(
                sites, (now, *(pair[0] for pair in pairs)), self._readout.now, weight,
                self._bias.now,
            ),
            Layers(
                sites, (drawn, *(pair[1] for pair in pairs)), self._readout.drawn, weight,
                self._bias.drawn,
            ),
        )  # fmt: skip

    @property
    def ranks(self) -> tuple[tuple[int, int], ...]:
        """Directions of features and of gradients that each hidden matrix has met."""
        return tuple(matrix.ranks for matrix in self._matrices)

    @property
    def left_out(self) -> float:
        """The largest share of a block's mean square that a basis did not take."""
        return max((matrix.left_out for matrix in self._matrices), default=0.0)


def _span(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "r d"]:
    """An orthonormal basis of the rows."""
    _, values, vectors = np.linalg.svd(x, full_matrices=False)
    return vectors[values > 1e-10 * values[0]]
