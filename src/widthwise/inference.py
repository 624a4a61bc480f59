"""How a posterior is found where no closed form gives it: settings only."""

import equinox as eqx

from widthwise import settings


class Inducing(eqx.Module):
    """The posterior at width inf through a few points in place of all rows: cost linear in rows.

    >>> Inducing(64, epochs=20)
    Inducing(points=64, epochs=20)

    Args:
        points: how many; a tuple for convolutional networks, one number for each resolution.
        epochs: passes over the rows, where it is trained in mini-batches.
        batch_size: rows a step; None takes all rows at once, which for a Gaussian likelihood has
            the best outputs in closed form.
        lr: step size of Adam, which drops to a tenth at 40 % and again at 80 % of the steps.
        regularisation: in mini-batches, the degrees of freedom of the noise that training puts on
            Gram matrices, as a share of the points; None leaves it out. Few are much noise.
        quadratic: in mini-batches, whether the KL divergences of hidden layers are taken to second
            order around the prior's Gram matrices.
    """

    points: int | tuple[int, ...]
    epochs: int = 100
    batch_size: int | None = None
    lr: float = 0.01
    regularisation: float | None = None
    quadratic: bool = False

    def __check_init__(self):
        if isinstance(self.points, tuple):
            settings.extents(self, "points")
        else:
            settings.whole(self, "points")
        settings.whole(self, "epochs")
        if self.batch_size is not None:
            settings.whole(self, "batch_size")
        settings.number(self, "lr", above=0)
        if self.regularisation is not None:
            settings.number(self, "regularisation", above=0)
        if not isinstance(self.quadratic, bool):
            raise TypeError(f"quadratic is {self.quadratic!r}: give True or False.")

    def __repr__(self) -> str:
        return settings.shown(self)


class Sampling(eqx.Module):
    """The posterior of finite networks by Hamiltonian Monte Carlo.

    >>> Sampling(chains=2, draws=1000)
    Sampling(chains=2, draws=1000)

    Args:
        chains: independent ones, from draws of the prior.
        warmup: steps in which step size and metric adapt, and which are thrown away.
        draws: kept, of each chain.
    """

    chains: int = 4
    warmup: int = 500
    draws: int = 500

    def __check_init__(self):
        settings.whole(self, "chains", low=2)
        settings.whole(self, "warmup")
        settings.whole(self, "draws", low=4)

    def __repr__(self) -> str:
        return settings.shown(self)
