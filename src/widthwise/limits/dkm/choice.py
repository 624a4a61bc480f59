"""How large the prior weighs against the data, chosen on rows that are held out."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.limits.dkm.learned import Learned
from widthwise.solve import blocks_of

NUS = (math.inf, 100.0, 10.0, 1.0)
HELD_OUT = 5  # one row of so many chooses nu
# Of the gradient, and iterations at most; benchmarks/uci_regression.py measures with these.
ROUGH, ITERATIONS = 1e-3, 100
BLOCK = 500  # rows that are predicted at once

Learn = Callable[[float, Learned | None], Learned]  # with a nu, from what was learned before


class Choice(NamedTuple):
    """A nu, and the log-likelihood of a row held out with each of `NUS`."""

    nu: float
    logs: tuple[float, ...]

    @property
    def told(self) -> str:
        """What a run's notes say."""
        logs = ", ".join(f"{log:.4g}" for log in self.logs)
        among = ", ".join(f"{nu:g}" for nu in NUS)
        return (
            f"One row of {HELD_OUT} was held out, and chose nu {self.nu:g} of {among}, with which "
            f"the log-likelihood of a row is {logs}."
        )


def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are held out, and all others."""
    order = np.random.default_rng(0).permutation(rows)
    return order[: rows // HELD_OUT], order[rows // HELD_OUT :]


def downwards(learn: Learn, last: float = NUS[-1]) -> Iterator[tuple[float, Learned]]:
    """Machines of ever smaller nu, each from the Gram matrices of the one before."""
    before = None
    for nu in NUS:
        before = learn(nu, before)
        yield nu, before
        if nu == last:
            return


def choose(learn: Learn, x: Float[np.ndarray, "m d"], y: Float[np.ndarray, "m k"]) -> Choice:
    """What rows held out, two at least, choose; `learn` learns on others."""
    return chosen({nu: _by_row(learned, x, y) for nu, learned in downwards(learn)})


def chosen(logs: Mapping[float, Float[np.ndarray, " m"]]) -> Choice:
    """The first nu, as they come, that is as good as the best to within one standard error.

    >>> chosen({math.inf: np.array([0.9, 1.1]), 10.0: np.array([1.3, 0.9])}).nu
    inf

    Args:
        logs: log-likelihoods of the same rows with each nu.
    """
    means = {nu: float(np.mean(own)) for nu, own in logs.items()}
    best = max(means, key=lambda nu: means[nu])
    behind = {nu: logs[best] - own for nu, own in logs.items()}
    near = (
        nu for nu, own in behind.items()
        if np.mean(own) <= np.std(own, ddof=1) / math.sqrt(len(own))
    )  # fmt: skip
    return Choice(next(near), tuple(means.values()))


def _by_row(learned: Learned, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " m"]:
    """Log-likelihoods of all targets of a row."""
    found = []
    for part in blocks_of(len(x), BLOCK):
        own = learned.state.predict(x[part], True)
        assert own.std is not None
        variance = own.std[:, None] ** 2 + learned.state.noise
        apart = (y[part] - own.value) ** 2 / variance
        found.append(-0.5 * np.sum(np.log(2 * np.pi * variance) + apart, axis=1))
    return np.concatenate(found)
