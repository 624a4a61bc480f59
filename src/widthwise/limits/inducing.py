"""Which rows stand for all of them, and the Gaussian process through those."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from widthwise.kernels import MonteCarlo, kernel_matrix
from widthwise.kernels.matrix import kernel_diagonal
from widthwise.learner import Posterior
from widthwise.limits.base import EmptyCell
from widthwise.limits.bound import Bound, summary_by
from widthwise.limits.evidence import Which, best_variances
from widthwise.memory import check_free
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.scaling import AbstractScaling
from widthwise.solve import Factor, cholesky

LEFT = 1e-10  # of the largest variance: rows with less of their own are told by those chosen
ROUNDS = 2  # of choosing variances at the rows that were chosen for the ones before
HELD = 4  # numbers of a row and an inducing row that are held at once


def refusal_of(network: AbstractLayer, learner: Posterior) -> str | None:
    """Why the settings of likelihood and inducing points are none that a Gaussian process or a deep
    kernel machine on rows of features serves, in a sentence; None where they are."""
    inducing = learner.inducing
    if learner.likelihood == "categorical":
        return (
            "The categorical likelihood has no closed form, and is trained through inducing points "
            "of deep Gaussian processes: use Posterior(prior='deep_gp', inducing=Inducing(100)) "
            "under MuP(), or likelihood='gaussian', which regresses on one-hot classes."
        )
    if inducing is None:
        return None
    if inducing.batch_size is not None:
        return (
            "Mini-batches train inducing points of deep Gaussian processes: leave batch_size out "
            "of Inducing, which takes all rows at once, or use prior='deep_gp' under MuP()."
        )
    if isinstance(inducing.points, tuple):
        return (
            f"points of Inducing is {inducing.points}, numbers for the resolutions of a "
            "convolutional network: give one number for rows of features."
        )
    if learner.criterion != "evidence":
        return (
            "Inducing points are chosen for by a bound on the evidence, not by leaving out rows: "
            "use criterion='evidence', or leave inducing out."
        )
    if isinstance(network, MonteCarlo):
        return (
            "The kernels of MonteCarlo(network) are estimates, whose error no few rows bound: "
            "leave inducing out."
        )
    return None


def points_of(learner: Posterior, problem: Problem) -> int | None:
    """How many inducing points stand for the rows; None where all rows are taken, which is as good
    as any number of points from there on."""
    inducing, rows = learner.inducing, len(problem.x_train)
    if inducing is None or isinstance(inducing.points, tuple) or inducing.points >= rows:
        return None
    return inducing.points


def check_points(points: int, problem: Problem) -> None:
    """Raises EmptyCell where memory or a store is named, which inducing points do not heed, and
    MemoryError for more of them than there is memory for."""
    if problem.resources.named:
        raise EmptyCell(
            "Inducing points need no kernel of all rows: leave memory, store and cluster out."
        )
    rows = len(problem.x_train)
    check_free(
        8 * HELD * points * (rows + points), f"{points} inducing points for {rows} rows",
        "use fewer points",
    )  # fmt: skip


def all_rows(learner: Posterior, problem: Problem) -> list[str]:
    """What to say where there are no more rows than points."""
    if learner.inducing is None:
        return []
    return [
        f"There are {len(problem.x_train)} rows, no more than inducing points: all of them are "
        "used, and nothing is approximated."
    ]


def chosen_rows(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    count: int,
    *,
    kernel: Which = "nngp",
    scaling: AbstractScaling,
) -> Int[np.ndarray, " m"]:
    """Rows each of which has the largest variance that those before leave it: pivoted Cholesky.

    >>> net = Dense() >> Relu() >> Readout()
    >>> chosen_rows(net, np.array([[1.0], [3.0], [2.0], [-1.0]]), 3, scaling=NTK()).tolist()
    [1, 3]

    So they take greedily from what the bound loses, more rows have fewer among them, nothing is
    drawn, and fewer than `count` are chosen where these tell all others: the covariance of the rows
    that are chosen is never singular.

    Source: burt2020, on greedy selection by conditional variance.
    """
    left = getattr(kernel_diagonal(network, x, scaling=scaling), kernel).copy()
    least = LEFT * left.max()
    found, columns = [], np.empty((count, len(x)))
    while len(found) < count:
        pivot = int(np.argmax(left))
        if not left[pivot] > least:
            break
        done = len(found)
        one = kernel_matrix(network, x, x[pivot : pivot + 1], which=kernel, scaling=scaling)[:, 0]
        own = one - columns[:done, pivot] @ columns[:done]
        columns[done] = own / np.sqrt(left[pivot])
        left -= columns[done] ** 2
        left[pivot] = 0.0
        found.append(pivot)
    return np.array(found)


class Settled(NamedTuple):
    """The network and noise, given or chosen by the bound, the inducing rows, and what all others
    tell through them."""

    network: AbstractLayer
    noise: float
    points: Float[np.ndarray, "m d"]
    prior: Factor
    bound: Bound
    notes: tuple[str, ...]


def settle(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n k"],
    *,
    count: int,
    learner: Posterior,
    scaling: AbstractScaling,
) -> Settled:
    """The Gaussian process of a network through `count` of the rows.

    With `tune` rows and variances are chosen in turn: rows for the network as it is given,
    variances by the bound that these give, and both again.
    """
    kernel, noise, notes = learner.kernel, learner.noise, []

    def chosen(network):
        return x[chosen_rows(network, x, count, kernel=kernel, scaling=scaling)]

    points = chosen(network)
    for _ in range(ROUNDS * learner.tune):
        network, _ = best_variances(
            network, x, y, scaling=scaling, kernel=kernel, noise=noise, inducing=points
        )
        points = chosen(network)
    prior, bound, scale = _bound(network, x, y, points, kernel, scaling)
    if noise is None:
        noise = bound.best_noise(scale)
    if learner.tune:
        notes.append(f"The bound chose noise {noise:.3g} and the network {network!r}.")
    elif learner.noise is None:
        notes.append(f"The bound chose a noise variance of {noise:.3g}.")
    notes.append(
        f"{len(points)} of {len(x)} rows are the inducing points, and bound the log evidence of "
        f"the Gaussian process from below by {bound.at(noise):.6g}."
    )
    return Settled(network, float(noise), points, prior, bound, tuple(notes))


def _bound(network, x, y, points, kernel: Which, scaling) -> tuple[Factor, Bound, float]:
    """The factor of the inducing rows' covariance, the bound, and the mean variance of a row."""
    prior = cholesky(kernel_matrix(network, points, which=kernel, scaling=scaling))
    variances = getattr(kernel_diagonal(network, x, scaling=scaling), kernel)

    def entries(block: slice):
        cross = kernel_matrix(network, x[block], points, which=kernel, scaling=scaling)
        return cross, variances[block]

    return prior, Bound.of(summary_by(entries, prior, y), y), float(np.mean(variances))
