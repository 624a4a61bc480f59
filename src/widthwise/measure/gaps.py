"""Distances between finite members and their limit, from logged trajectories.

A finite run is held against the limit started from that run's own initial function, so that what
is left is the width's doing and not the draw's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

WidthsBySeeds = Float[np.ndarray, "w s"]


class Gaps(NamedTuple):
    """Gaps at each width (rows) and seed (columns)."""

    predictions: WidthsBySeeds  # rms over test points and outputs, relative to the limit's rms
    losses: WidthsBySeeds  # test loss less the limit's
    kernels: WidthsBySeeds  # of the last logged layer at the start, relative


class EnsembleGaps(NamedTuple):
    """Gaps of statistics over seeds, from all seeds and without one of them."""

    mean: Float[np.ndarray, " w"]
    mean_without: WidthsBySeeds
    std: Float[np.ndarray, " w"]
    std_without: WidthsBySeeds


def relative(x, reference) -> float:
    """rms(x - reference) / rms(reference)."""
    x, reference = np.asarray(x, dtype=float), np.asarray(reference, dtype=float)
    size = float(np.sqrt(np.mean(reference**2)))
    return float(np.sqrt(np.mean((x - reference) ** 2))) / size if size > 0 else float("nan")


def final(run) -> Float[np.ndarray, "m k"]:
    return run.trajectory.predictions[-1]


def gaps_of(runs) -> Gaps:
    """Of every finite run from the limit of its own start."""
    names = list(runs.limit.trajectory.kernels)

    def kernel_gap(run) -> float:
        if not names:
            return float("nan")  # no hidden layer
        own, limit = (r.trajectory.kernels[names[-1]][0] for r in (run, runs.limit))
        return relative(own, limit)

    pairs = [[(run, runs.from_start_of(run)) for run in runs.at(w)] for w in runs.widths]

    def table(measure) -> np.ndarray:
        return np.array([[measure(run, limit) for run, limit in row] for row in pairs])

    return Gaps(
        table(lambda run, limit: relative(final(run), final(limit))),
        table(lambda run, limit: run.trajectory.test_loss[-1] - limit.trajectory.test_loss[-1]),
        table(lambda run, limit: kernel_gap(run)),
    )


def ensemble_gaps(runs) -> EnsembleGaps:
    """Of the mean and of the point-wise standard deviation over seeds.

    Both are held against the same statistic of the limits from the same starts: the sampling of
    the starts is in both and cancels, which leaves what shrinks with the width. A limit that
    forgets its start has no standard deviation: the members' is then held against 0, in units of
    the limit's predictions.
    """
    rows = [[], [], [], []]
    for width in runs.widths:
        own = np.stack([final(run) for run in runs.at(width)])
        limits = np.stack([final(runs.from_start_of(run)) for run in runs.at(width)])
        everyone = np.arange(len(own))
        others = [np.delete(everyone, seed) for seed in everyone]
        for row, statistic in ((0, _mean), (2, _std)):
            rows[row].append(_apart(statistic, own, limits))
            rows[row + 1].append([_apart(statistic, own[s], limits[s]) for s in others])
    return EnsembleGaps(*(np.array(row) for row in rows))


def _apart(statistic, own, limits) -> float:
    """How far a statistic is from the limits', relative to that or, where they do not differ, to
    the limit itself."""
    differ = len(limits) > 1 and np.ptp(limits, axis=0).any()
    size = statistic(limits) if differ else _mean(limits)
    apart, size = (np.sqrt(np.mean(x**2)) for x in (statistic(own) - statistic(limits), size))
    return float(apart / size) if size > 0 else float("nan")


def _mean(stack):
    return stack.mean(axis=0) if len(stack) else np.full(stack.shape[1:], np.nan)


def _std(stack):
    return stack.std(axis=0, ddof=1) if len(stack) > 1 else np.full(stack.shape[1:], np.nan)


def mean_in_standard_errors(runs, width: int) -> float | None:
    """rms over test points of (mean over seeds - the limit's mean) / (limit's std / sqrt(seeds)).

    Near 1 where an ensemble is a sample of the limit's Gaussian; None where there is one seed or
    where the limit has no covariance, or one that vanishes.
    """
    own = np.stack([final(run) for run in runs.at(width)])
    if len(own) < 2 or len(runs.data.x_test) == 0:
        return None
    found = runs.limit.predict(runs.data.x_test, covariance=True)
    if found.std is None or found.std.min() <= 1e-6 * np.abs(own).max():
        return None
    std = found.std if found.std.ndim == 2 else found.std[:, None]
    error = std / np.sqrt(len(own))
    centred = own.mean(axis=0) - (found.value - runs.limit.offset)
    return float(np.sqrt(np.mean((centred / error) ** 2)))
