"""Layers with weights: Dense grows with the width, Readout takes its outputs from the data."""

from numbers import Real
from typing import ClassVar

import equinox as eqx

from widthwise import settings
from widthwise.network.layer import AbstractLayer
from widthwise.network.signal import OUTPUTS, Signal, Size
from widthwise.network.weight import Weight
from widthwise.scaling import Number


class Affine(eqx.Module):
    """The two tensors of an affine layer: specifications, arrays or tangents, as the case is."""

    weight: object
    bias: object


class Dense(AbstractLayer):
    """h = W x + b with as many features as the network is wide.

    >>> Dense() >> Relu() >> Dense(times=2) >> Relu() >> Readout()
    Dense() >> Relu() >> Dense(times=2) >> Relu() >> Readout()

    Args:
        times: features in units of the width.
        weight_variance: entries of W start with variance weight_variance / fan_in; 2 keeps ReLU
            activations of order one at any depth.
        bias_variance: variance of b at the start; 0 starts at zero.
        bias_multiplier: b enters as bias_multiplier * b and is trained; its square is the bias's
            share in the tangent kernel, where 1 would drown the weights. 0 leaves it out.
        lr_multiplier: factor on the step size of the layer's weights and bias; 0 keeps the layer as
            it was drawn, under every learner that steps weights.
    """

    source: ClassVar[str] = "jacot2018, Proposition 1 and Theorem 1; lee2018, eq. (4)"
    times: int = eqx.field(default=1, static=True)
    weight_variance: Number = 2.0
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        settings.whole(self, "times")
        check_affine(self)

    def signal(self, incoming: Signal) -> Signal:
        return incoming.remade(Size(times=self.times), True)

    def weights(self, incoming: Signal) -> Affine:
        return _affine(self, incoming, Size(times=self.times))

    def apply(self, weights, x):
        return x @ weights.weight + weights.bias

    def kernel(self, weights, moments):
        return moments.affine(weights.weight, weights.bias)

    def fresh(self) -> bool:
        return True


class Readout(AbstractLayer):
    """The last layer: as many outputs as the data has. Arguments as for `Dense`, but the default
    variance of 1/4 starts the output below the size of standardised targets, so that training
    need not first unlearn it.

    >>> (Dense() >> Erf() >> Readout()).layers[-1]
    Readout()
    """

    source: ClassVar[str] = "jacot2018, Proposition 1 and Theorem 1; lee2018, eq. (4)"
    weight_variance: Number = 0.25
    bias_variance: Number = 0.0
    bias_multiplier: Number = 0.1
    lr_multiplier: Number = 1.0

    def __check_init__(self):
        check_affine(self)

    def signal(self, incoming: Signal) -> Signal:
        if incoming.shape:
            raise ValueError(
                f"{self!r} reads one vector, and {incoming} arrive: put Flatten() or "
                "GlobalAveragePool() in front of it."
            )
        return Signal(OUTPUTS, True, (), linked=False)

    def weights(self, incoming: Signal) -> Affine:
        return _affine(self, incoming, OUTPUTS)

    def apply(self, weights, x):
        return x @ weights.weight + weights.bias

    def kernel(self, weights, moments):
        return moments.affine(weights.weight, weights.bias)

    def fresh(self) -> bool:
        return True


def _affine(layer: Dense | Readout, incoming: Signal, fan_out: Size) -> Affine:
    if incoming.size is None:
        raise ValueError(f"The number of features that arrive at {layer!r} is not known.")
    return Affine(
        Weight(incoming.size, fan_out, layer.weight_variance, lr_multiplier=layer.lr_multiplier),
        Weight(None, fan_out, layer.bias_variance, layer.bias_multiplier, layer.lr_multiplier),
    )


def check_affine(layer: AbstractLayer) -> None:
    """Refuses variances and multipliers that are none."""
    settings.number(layer, "weight_variance", above=0)
    settings.number(layer, "bias_variance", low=0)
    settings.number(layer, "bias_multiplier", low=0)
    settings.number(layer, "lr_multiplier", low=0)
    variance, multiplier = layer.bias_variance, layer.bias_multiplier  # type: ignore[attr-defined]
    if isinstance(multiplier, Real) and multiplier == 0:
        if not isinstance(variance, Real) or float(variance) > 0:
            raise ValueError(
                f"bias_variance is {variance} but bias_multiplier is 0: a bias that is left out "
                "has no variance."
            )
