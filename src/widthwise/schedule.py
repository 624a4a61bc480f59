"""How the step size changes over a training: a factor for each step."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float

from widthwise import settings


class AbstractSchedule(eqx.Module):
    """A value; learners multiply their step size, and their clipping bound, by its factors."""

    @abc.abstractmethod
    def factors(self, steps: int) -> Float[np.ndarray, " {steps}"]:
        """The factor of each step, 1 at most."""

    def __repr__(self) -> str:
        return settings.shown(self)


class Constant(AbstractSchedule):
    """The same step size throughout.

    >>> Constant().factors(3).tolist()
    [1.0, 1.0, 1.0]
    """

    def factors(self, steps):
        return np.ones(steps)


class Cosine(AbstractSchedule):
    """From 1 to 0 along half a cosine.

    >>> Cosine().factors(3).round(2).tolist()
    [1.0, 0.75, 0.25]
    """

    def factors(self, steps):
        return (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2


class Drop(AbstractSchedule):
    """1, and from a share `at` of the steps on `factor`.

    >>> Drop(at=0.5, factor=0.1).factors(4).tolist()
    [1.0, 1.0, 0.1, 0.1]

    Args:
        at: share of the steps before the drop, between 0 and 1.
        factor: of the steps after it, over 0.
    """

    at: float = 0.8
    factor: float = 0.15

    def __check_init__(self):
        settings.number(self, "at", low=0)
        settings.number(self, "factor", above=0)
        if self.at > 1:
            raise ValueError(f"at of Drop is {self.at}: a share of the steps, 0 to 1.")

    def factors(self, steps):
        return np.where(np.arange(steps) < round(self.at * steps), 1.0, self.factor)


class Linear(AbstractSchedule):
    """From 1 down to `end` in a straight line.

    >>> Linear(end=0.0).factors(4).tolist()
    [1.0, 0.75, 0.5, 0.25]

    Args:
        end: the factor that the line reaches after the last step.
    """

    end: float = 0.0

    def __check_init__(self):
        settings.number(self, "end", low=0)

    def factors(self, steps):
        return 1 + (self.end - 1) * np.arange(steps) / steps
