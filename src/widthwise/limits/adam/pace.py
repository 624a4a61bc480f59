"""An entrywise optimiser's numbers at one step."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.learner import Adam, Entrywise
from widthwise.limits.adam.sites import Sites


class Pace(NamedTuple):
    """One step: numbers are float32, as the sampled entries are."""

    lr: np.float32
    keep1: np.float32
    take1: np.float32  # 1 - keep1
    keep2: np.float32
    take2: np.float32
    whole1: np.float32  # 1 - keep1^steps, the weight of all gradients seen; 1 where not corrected
    whole2: np.float32
    eps: np.float32
    left: np.float32  # what weight decay leaves of the steps before
    of_mean: bool  # whether the size that divides is that of the averaged gradient


_0, _1 = np.float32(0), np.float32(1)
NO_STEP = Pace(_0, _0, _0, _0, _0, _1, _1, _1, left=_1, of_mean=False)


def pace_of(learner: Entrywise, lr: float, step: int) -> Pace:
    """At step 0, 1, ..., of this size."""
    adam = isinstance(learner, Adam)
    b1, b2 = (learner.b1, learner.b2) if adam else (learner.momentum, 0.0)
    corrected = adam and learner.bias_correction
    whole1, whole2 = (1 - b ** (step + 1) if corrected else 1.0 for b in (b1, b2))
    return Pace(
        np.float32(lr), np.float32(b1), np.float32(1 - b1), np.float32(b2), np.float32(1 - b2),
        np.float32(whole1), np.float32(whole2), np.float32(learner.eps),
        left=np.float32(1 - lr * learner.weight_decay), of_mean=not adam,
    )  # fmt: skip


class Left(NamedTuple):
    """What weight decay has left, by step, of a homogeneous network without biases.

    Where every one of K layers' weights is multiplied by c, the function is by c^K, and so is
    what a change of one layer's weights does to it by c^(K - 1), and its gradients.
    """

    function: Float[np.ndarray, " t"]
    change: Float[np.ndarray, " t"]


def left_of(learner: Entrywise, sites: Sites) -> Left:
    """From before the first step to behind the last."""
    assert learner.lr is not None
    factors = 1 - learner.lr * learner.weight_decay * learner.schedule.factors(learner.steps)
    weights = np.concatenate([[1.0], np.cumprod(factors)])
    layers = len(sites.hidden) + 1
    return Left(weights**layers, weights ** (layers - 1))
