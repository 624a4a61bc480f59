"""What the steps of one layer's tensors do to the function, over neurons of two layers.

Every block reads which rows a batch has and the loss's slopes there, moves its sums of steps, and
adds to the outputs of other rows what these sums do. Means over neurons stand for sums over the
entries of a tensor.
"""

import abc
import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from widthwise.limits.adam import compiled
from widthwise.limits.adam.compiled import CHUNK, PAIRS
from widthwise.limits.adam.laws import Laws
from widthwise.limits.adam.neurons import GROUP, Counts, Layer
from widthwise.limits.adam.pace import NO_STEP, Pace
from widthwise.limits.adam.sites import Site, Sites, Tensor

TENSORS = 2  # of a layer: weights and bias


class Batch(NamedTuple):
    """Which rows of the layers' arrays, and what the first layer reads there."""

    rows: Int[np.ndarray, " b"]
    x: Float[np.ndarray, "b d"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " b"] | None = None) -> "Batch":
        """All of the rows, or some of them."""
        rows = np.arange(len(x), dtype=np.int32) if rows is None else rows
        return cls(rows, x[rows].astype(np.float32))


class Memory(NamedTuple):
    """Sums of steps less their linear part (linear.py), each times its step size, and the two
    moments, of every entry."""

    w: Float[np.ndarray, "c j w"]
    m: Float[np.ndarray, "c j w"]
    v: Float[np.ndarray, "c j w"]

    @classmethod
    def zeros(cls, shape: tuple[int, int, int]) -> "Memory":
        return cls(*(np.zeros(shape, np.float32) for _ in cls._fields))


@dataclasses.dataclass(frozen=True)
class AbstractBlock(abc.ABC):
    """The tensors of one layer."""

    site: Site
    number: int  # of the hidden layer that it leads to
    neurons: int

    @abc.abstractmethod
    def entries(self, inputs: int, outputs: int) -> int:
        """Entries a neuron."""

    @abc.abstractmethod
    def visit(
        self,
        layers: tuple[Layer, ...],
        own: range,
        memory: Memory,
        pace: Pace,
        batch: Batch,
        chi: Float[np.ndarray, "b k"],
        following: Batch,
        line: Float[np.ndarray, " t"],
        fit: Float[np.ndarray, "t 2"],
        out: Float[np.ndarray, "q k"],
    ) -> None:
        """One step on a batch (none if it has no rows), `fit` of its line, and `out` for the rows
        that follow, for the neurons of these chunks."""  # fmt: skip

    @abc.abstractmethod
    def kernels(self, laws: Laws) -> tuple[Float[np.ndarray, "m n"], ...]:
        """Tangent kernels of the weights and the bias, step sizes included."""

    @property
    def chunks(self) -> int:
        return self.neurons // CHUNK

    def moves(
        self, layers: tuple[Layer, ...], w: Float[np.ndarray, "c j w"], rows: Batch
    ) -> Float[np.ndarray, "q k"]:
        """What sums of steps, of as many chunks as the layers have, do to the outputs."""
        none, chi = Batch.of(rows.x[:0]), np.zeros((0, layers[0].dx.shape[2]), np.float32)
        out = np.zeros((len(rows.rows), chi.shape[1]), np.float32)
        line, fit = np.zeros(TENSORS, np.float32), np.zeros((TENSORS, 2))
        moments = Memory(w, w, w)
        self.visit(layers, range(len(w)), moments, NO_STEP, none, chi, rows, line, fit, out)
        return out


class Inputs(AbstractBlock):
    """Weights of the inputs and the first layer's bias: as many entries a neuron as inputs."""

    def entries(self, inputs, outputs):
        return inputs + 1

    def visit(self, layers, own, memory, pace, batch, chi, following, line, fit, out):
        dx, slope, _ = layers[0]
        weight, bias = self.site.weight, self.site.bias
        rates = np.full(batch.x.shape[1] + 1, weight.rate / self.neurons, np.float32)
        rates[-1] = bias.rate / self.neurons
        compiled.inputs(
            own.start, own.stop, dx, slope, np.ascontiguousarray(self._read(batch).T), rates, pace,
            batch.rows, chi, following.rows, self._read(following), line, fit, *memory, out,
        )  # fmt: skip

    def kernels(self, laws):
        behind = laws.backward[0] * laws.slopes[0]
        return _tangent(self.site.weight, laws.inputs * behind), _tangent(self.site.bias, behind)

    def _read(self, batch: Batch) -> Float[np.ndarray, "b j"]:
        ones = np.full((len(batch.x), 1), self.site.bias.gain, np.float32)
        return np.concatenate([np.float32(self.site.weight.gain) * batch.x, ones], axis=1)


class Hidden(AbstractBlock):
    """Weights between two hidden layers, and the bias of the later one."""

    def entries(self, inputs, outputs):
        return PAIRS + 1

    def visit(self, layers, own, memory, pace, batch, chi, following, line, fit, out):
        (dx, slope, _), (_, _, y) = layers[self.number], layers[self.number - 1]
        weight, bias = self.site.weight, self.site.bias
        gains = np.array([weight.gain, bias.gain], np.float32)
        moved = np.array([weight.gain * weight.rate / PAIRS, bias.gain * bias.rate], np.float32)
        compiled.hidden(
            own.start, own.stop, dx, slope, y, gains, moved / np.float32(self.neurons), pace,
            batch.rows, chi, following.rows, line, fit, *memory, out,
        )  # fmt: skip

    def kernels(self, laws):
        behind = laws.backward[self.number] * laws.slopes[self.number]
        read = laws.features[self.number - 1]
        return _tangent(self.site.weight, read * behind), _tangent(self.site.bias, behind)


class Ends(AbstractBlock):
    """Weights of the readout, one a neuron and output."""

    def entries(self, inputs, outputs):
        return outputs

    def visit(self, layers, own, memory, pace, batch, chi, following, line, fit, out):
        weight = self.site.weight
        compiled.readout(
            own.start, own.stop, layers[-1].y, np.float32(weight.gain),
            np.float32(weight.gain * weight.rate / self.neurons), pace, batch.rows, chi,
            following.rows, line, fit, *memory, out,
        )  # fmt: skip

    def kernels(self, laws):
        return (_tangent(self.site.weight, laws.features[-1]),)


def _tangent(tensor: Tensor, covariance: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    return (tensor.gain**2 * tensor.rate * covariance).astype(np.float32)


def blocks_of(sites: Sites, counts: Counts) -> tuple[AbstractBlock, ...]:
    """Those that steps move; without the readout's bias, which is no sum over neurons."""
    found: list[AbstractBlock] = []
    for number, site in enumerate(sites.hidden):
        if site.weight.rate > 0 or site.bias.rate > 0:
            kind, groups = (Hidden, counts.groups) if number else (Inputs, counts.input_groups)
            found.append(kind(site, number, GROUP * groups))
    if sites.readout.weight.rate > 0:
        found.append(Ends(sites.readout, len(sites.hidden), GROUP * counts.groups))
    return tuple(found)
