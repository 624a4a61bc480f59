"""What flows between layers, as far as composition must know it: sizes and Gaussianity."""

import equinox as eqx


class Size(eqx.Module):
    """A number of features: `times` the width n, or `fixed`.

    >>> Size(times=2).at(64), Size(fixed=10).at(64)
    (128, 10)
    """

    times: int = 0
    fixed: int = 0

    @property
    def grows(self) -> bool:
        return self.times > 0

    def at(self, width: int) -> int:
        return self.times * width if self.grows else self.fixed

    def __str__(self) -> str:
        if self.grows:
            return "n" if self.times == 1 else f"{self.times}n"
        return "as many as there are outputs" if self == OUTPUTS else str(self.fixed)


OUTPUTS = Size(fixed=-1)  # as many as the data has: resolved when a network meets data


class Vector(eqx.Module):
    """A feature vector; None where a network that is not yet whole cannot know.

    `gaussian`: coordinates become independent Gaussians at infinite width, which is what a
    nonlinearity needs in front of it.
    """

    size: Size | None = None
    gaussian: bool | None = None
