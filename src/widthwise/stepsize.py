"""The default step size of a member, whatever its width."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from widthwise.finite.stepsize import (
    REFERENCE_WIDTH,
    largest_first_step,
    largest_step_by_trial,
)
from widthwise.kernels import MonteCarlo, kernel_matrix
from widthwise.learner import AbstractLearner, Entrywise, Stepwise
from widthwise.limits.descent import largest_stable_step
from widthwise.limits.table import regime
from widthwise.network.layer import AbstractLayer
from widthwise.problem import Problem
from widthwise.scaling import AbstractScaling

STEP_ROWS = 2000  # rows on which the largest eigenvalue is measured
STEP_DRAWS = 8  # of networks that have no closed form


def with_step_size(
    network: AbstractLayer,
    scaling: AbstractScaling,
    learner: AbstractLearner,
    problem: Problem,
    widths: Sequence[float] = (),
) -> Any:
    """The learner with its default step size filled in: `safety` times the largest stable one.

    Where features stay, gradient descent is stable up to a step that the tangent kernel gives,
    measured on at most 2,000 rows, by a few Monte Carlo draws where a layer has no rule. Where they
    move, with momentum, and under Adam, a formula knows the first steps only, and training is tried
    from there downwards, at width 64 or at the narrowest of `widths` below it. Networks as narrow
    are tried anyhow: their kernels are far from the limit's. One step size serves all widths.
    """
    if not isinstance(learner, Stepwise) or learner.lr is not None:
        return learner
    narrow = int(min([REFERENCE_WIDTH, *widths]))
    if isinstance(learner, Entrywise):
        first = largest_first_step(network, scaling, problem, learner.loss)
        largest = largest_step_by_trial(network, scaling, problem, learner, first, narrow)
    else:
        lazy = regime(network, scaling, learner) == "lazy"
        width = math.inf if lazy else REFERENCE_WIDTH
        x = problem.x_train[:STEP_ROWS]
        # only finite members come here with a layer that has no rule
        drawn = network.refusal() is not None
        known = MonteCarlo(network, STEP_DRAWS, REFERENCE_WIDTH) if drawn else network
        kernel = kernel_matrix(known, x, scaling=scaling, width=width).ntk
        largest = largest_stable_step(kernel, learner)
        if not lazy or learner.momentum:
            largest = largest_step_by_trial(network, scaling, problem, learner, largest, narrow)
        elif narrow < REFERENCE_WIDTH:
            first = learner.safety * largest
            lr = largest_step_by_trial(network, scaling, problem, learner, first, narrow)
            return dataclasses.replace(learner, lr=lr)
    return dataclasses.replace(learner, lr=learner.safety * largest)
