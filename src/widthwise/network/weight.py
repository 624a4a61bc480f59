"""What a layer says of a tensor that it owns."""

import math

import equinox as eqx

from widthwise.network.signal import Size
from widthwise.scaling import Number, Power, Role


class Weight(eqx.Module):
    """One tensor that a layer owns, before any width or scaling is chosen.

    In the NTK parametrization it enters as gain * w with w ~ N(0, std^2); other scalings move
    powers of the width between the two. `fan_in` is None for a bias. A filter has one matrix for
    each of its taps, whose inputs all add to one sum; `copies` are of positions that each have
    weights of their own.
    """

    fan_in: Size | None
    fan_out: Size
    variance: Number
    gain: Number = 1.0  # biases only: a weight's gain follows from variance and fan-in
    lr_multiplier: Number = 1.0
    taps: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()

    @property
    def inputs(self) -> Size:
        """What one output reads; a bias reads the constant 1."""
        return Size(fixed=1) if self.fan_in is None else self.fan_in.by(math.prod(self.taps))

    def shape(self, width: int) -> tuple[int, ...]:
        """Of the tensor at a width."""
        sizes = (self.fan_out,) if self.fan_in is None else (self.fan_in, self.fan_out)
        return (*self.copies, *self.taps, *(size.at(width) for size in sizes))

    @property
    def role(self) -> Role:
        if self.fan_in is None:
            return Role.BIAS if self.fan_out.grows else Role.FIXED
        if self.fan_in.grows:
            return Role.HIDDEN if self.fan_out.grows else Role.OUTPUT
        return Role.INPUT if self.fan_out.grows else Role.FIXED

    def natural(self) -> tuple[Power, Power]:
        """(gain, std) in the NTK parametrization, as powers of the width."""
        if self.fan_in is None:
            zero = isinstance(self.gain, (int, float)) and self.gain == 0
            std = 0.0 if zero else self.variance**0.5 / self.gain
            return Power(self.gain), Power(std)
        count = self.inputs.times if self.fan_in.grows else self.inputs.fixed
        exponent = -0.5 if self.fan_in.grows else 0.0
        return Power((self.variance / count) ** 0.5, exponent), Power(1.0)
