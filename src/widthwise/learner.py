"""What data does to the weights: settings only."""

import math
from typing import ClassVar, Literal

import equinox as eqx

from widthwise import settings
from widthwise.inference import Inducing, Sampling
from widthwise.projection import Projection, projection_of
from widthwise.schedule import AbstractSchedule, Constant

SMALLEST = 1e-37  # eps, below which float32 knows only zero
LossName = Literal["mse", "cross_entropy"]
ClipBy = Literal["tensor", "global"]
Criterion = Literal["evidence", "leave_one_out"]


class AbstractLearner(eqx.Module):
    """A learner is a value; members read it, nothing in it runs."""

    kind: ClassVar[str]  # the column of the table
    entrywise: ClassVar[bool] = False  # whether an optimiser divides each entry by its own size

    def __repr__(self) -> str:
        return settings.shown(self)


def _check_descent(learner) -> None:
    if learner.lr is not None:
        settings.number(learner, "lr", above=0)
    settings.whole(learner, "steps")
    if learner.batch_size is not None:
        settings.whole(learner, "batch_size")
    settings.number(learner, "weight_decay", low=0)
    check_loss(learner.loss)
    if not isinstance(learner.schedule, AbstractSchedule):
        raise TypeError(f"schedule is {learner.schedule!r}: give a value such as Cosine().")


def check_loss(loss: str) -> None:
    if loss not in ("mse", "cross_entropy"):
        raise ValueError(f"loss is {loss!r}: choose 'mse' or 'cross_entropy'.")


class GradientDescent(AbstractLearner):
    """Gradient descent with momentum, on all rows or in mini-batches.

    >>> GradientDescent(lr=0.5, steps=100).momentum
    0.0

    Args:
        lr: step size in the width-free coordinates of the scaling; None takes `safety` times the
            largest stable one: 2 (1 + momentum) / (curvature * largest eigenvalue of the
            tangent kernel / rows), and where features move the largest of that, its half, its
            quarter, ... at which networks of width 64, or of a narrower one asked for, train.
        steps: number of steps.
        batch_size: rows a step, drawn in shuffled passes; None uses all.
        momentum: heavy-ball coefficient, 0 to below 1.
        weight_decay: every step multiplies weights by 1 - lr * weight_decay, at every width.
        ridge: strength of the penalty ridge / (2 rows) * |theta - theta_0|^2 on the distance
            travelled; at infinite width it is the ridge added to the tangent kernel.
        loss: "mse", half the squared error summed over outputs, or "cross_entropy".
        schedule: a factor on the step size, and on `clip`, that changes over the steps.
        clip: bound on the gradient's norm, in width-free coordinates (those of `lr`, before the
            layers' own multipliers); None leaves it out.
        clip_by: whether the bound is each tensor's ("tensor") or that of all together ("global").
        projection: a number of directions, or a `Projection`: the gradients of every hidden layer
            are projected onto so many random ones, at every width; rich scalings only.
        safety: the stated factor of the default step size.
    """

    kind: ClassVar[str] = "gradient descent"
    lr: float | None = None
    steps: int = 400
    batch_size: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    ridge: float = 0.0
    loss: LossName = "mse"
    schedule: AbstractSchedule = Constant()
    clip: float | None = None
    clip_by: ClipBy = "tensor"
    projection: Projection | None = eqx.field(default=None, converter=projection_of)
    safety: float = 0.5

    def __check_init__(self):
        _check_descent(self)
        _check_fraction(self, "momentum")
        settings.number(self, "ridge", low=0)
        _check_safety(self)
        if self.clip is not None:
            settings.number(self, "clip", above=0)
        if self.clip_by not in ("tensor", "global"):
            raise ValueError(f"clip_by is {self.clip_by!r}: choose 'tensor' or 'global'.")
        if not isinstance(self.projection, Projection | None):
            raise TypeError(
                f"projection is {self.projection!r}: give a number of directions such as 400."
            )


class GradientFlow(AbstractLearner):
    """Gradient descent with vanishing steps, run for `time`; at width infinity only.

    >>> GradientFlow().time
    inf

    Args:
        time: step size times number of steps; inf runs to the end (squared error only).
        friction: None flows down the gradient; a number flows as a heavy ball does, with
            theta'' = -friction theta' - gradient. Momentum m at step size lr is friction
            (1 - m) / sqrt(lr), and `time` then counts steps in units of sqrt(lr).
        ridge, loss: as for `GradientDescent`.
    """

    kind: ClassVar[str] = "gradient descent"
    time: float = math.inf
    friction: float | None = None
    ridge: float = 0.0
    loss: LossName = "mse"

    def __check_init__(self):
        if self.time != math.inf:
            settings.number(self, "time", above=0)
        if self.friction is not None:
            settings.number(self, "friction", above=0)
        if self.loss == "cross_entropy" and self.time == math.inf:
            raise ValueError("Cross-entropy has no end at infinite time: give a finite time.")
        settings.number(self, "ridge", low=0)
        check_loss(self.loss)


class Adam(AbstractLearner):
    """Adam, with decoupled weight decay (AdamW).

    >>> Adam(steps=100).b1
    0.9

    Args:
        lr: step size in the width-free coordinates of the scaling; None takes `safety` times the
            largest stable one: of the largest first step that does not raise the loss's
            quadratic model, its half, its quarter, ... the first at which networks of width 64,
            or of a narrower one asked for, train.
        b1, b2: decay of the first and second moment.
        eps: added to the root of the second moment, in width-free units (gradient times n^d);
            1e-37 or more.
        bias_correction: whether the moments are divided by the weight of the gradients they have
            seen, 1 - b^steps; without it they start from zero.
        steps, batch_size, weight_decay, loss, schedule: as for `GradientDescent`.
        safety: the stated factor of the default step size; momentum adds up about
            1 / (1 - b1) steps of one sign, hence a tenth.
    """

    kind: ClassVar[str] = "Adam"
    entrywise: ClassVar[bool] = True
    lr: float | None = None
    steps: int = 400
    batch_size: int | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    bias_correction: bool = True
    weight_decay: float = 0.0
    loss: LossName = "mse"
    schedule: AbstractSchedule = Constant()
    safety: float = 0.1

    def __check_init__(self):
        _check_descent(self)
        _check_fraction(self, "b1")
        _check_fraction(self, "b2")
        settings.number(self, "eps", low=SMALLEST)
        if not isinstance(self.bias_correction, bool):
            raise TypeError(f"bias_correction is {self.bias_correction!r}: give True or False.")
        _check_safety(self)


class SignDescent(AbstractLearner):
    """Steps of one size along the sign of the averaged gradient (signum), softened by eps.

    >>> SignDescent(steps=100).momentum
    0.9

    A step is m / (|m| + eps) with m = momentum * m + (1 - momentum) * gradient. Without momentum
    it is Adam with b1 = b2 = 0.

    Args:
        lr, safety: as for `Adam`.
        momentum: 0 to below 1.
        eps: added to the size of m, in width-free units (gradient times n^d); 1e-37 or more.
        steps, batch_size, weight_decay, loss, schedule: as for `GradientDescent`.
    """

    kind: ClassVar[str] = "Adam"
    entrywise: ClassVar[bool] = True
    lr: float | None = None
    steps: int = 400
    batch_size: int | None = None
    momentum: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.0
    loss: LossName = "mse"
    schedule: AbstractSchedule = Constant()
    safety: float = 0.1

    def __check_init__(self):
        _check_descent(self)
        _check_fraction(self, "momentum")
        settings.number(self, "eps", low=SMALLEST)
        _check_safety(self)


Entrywise = Adam | SignDescent  # what the limits of the Adam column are known for
Stepwise = GradientDescent | Entrywise  # what trains a finite network


class Posterior(AbstractLearner):
    """Bayes: condition the prior over networks on the data, with Gaussian noise.

    >>> Posterior(noise=0.1).noise
    0.1

    Args:
        noise: variance of the noise on the targets; None chooses it.
        tune: also choose every layer's variances.
        kernel: the prior's covariance: "nngp", that of the networks themselves, or "ntk", that of
            networks linear in their parameters around a random start.
        criterion: what is chosen by: "evidence", the probability of the targets, or
            "leave_one_out", the squared error of each row as predicted by all others.
        prior: under rich scalings, what is conditioned: "network", networks as they are drawn, or
            "deep_gp", deep Gaussian processes, every layer of which is Gaussian given the one
            before, with the network's kernels. They are one for linear networks, and under lazy
            scalings.
        nu: under rich scalings, how large the prior weighs against the data: hidden layers have
            nu times `times` features for each copy of the outputs, where every copy has a
            likelihood of its own, that of the targets, and the number of copies grows with the
            width. inf leaves the features as they were drawn. The objective grows as nu falls
            whatever the data: None, for deep kernel machines at width inf, chooses nu among inf,
            100, 10 and 1 on a fifth of the rows that is held out, the largest that is as good as
            the best to within a standard error. A tuple has one for each hidden layer.
        likelihood: "gaussian", classes as numbers, or "categorical", the softmax of one output for
            each class.
        inducing: at width inf, stands for all rows through a few points.
        sampling: at finite widths, how networks with nonlinearities are sampled.
    """

    kind: ClassVar[str] = "posterior"
    noise: float | None = None
    tune: bool = False
    kernel: Literal["nngp", "ntk"] = "nngp"
    criterion: Criterion = "evidence"
    prior: Literal["network", "deep_gp"] = "network"
    nu: float | tuple[float, ...] | None = 1.0
    likelihood: Literal["gaussian", "categorical"] = "gaussian"
    inducing: Inducing | None = None
    sampling: Sampling = Sampling()

    def __check_init__(self):
        if self.noise is not None:
            settings.number(self, "noise", above=0)
        if self.kernel not in ("nngp", "ntk"):
            raise ValueError(f"kernel is {self.kernel!r}: choose 'nngp' or 'ntk'.")
        if self.criterion not in ("evidence", "leave_one_out"):
            raise ValueError(
                f"criterion is {self.criterion!r}: choose 'evidence' or 'leave_one_out'."
            )
        settings.one_of(self, "prior", ("network", "deep_gp"))
        settings.one_of(self, "likelihood", ("gaussian", "categorical"))
        given = () if self.nu is None else self.nu
        for nu in given if isinstance(given, tuple) else (given,):
            if not (settings.is_number(nu) or nu == math.inf) or nu < 0:
                raise ValueError(
                    f"nu of Posterior is {self.nu!r}: give numbers from 0 to inf, or None."
                )
        if not isinstance(self.inducing, Inducing | None):
            raise TypeError(f"inducing is {self.inducing!r}: give a value such as Inducing(100).")
        if not isinstance(self.sampling, Sampling):
            raise TypeError(f"sampling is {self.sampling!r}: give a value such as Sampling().")


def _check_fraction(learner, name: str) -> None:
    settings.number(learner, name)
    if not 0 <= getattr(learner, name) < 1:
        raise ValueError(f"{name} is {getattr(learner, name)}: it lies between 0 and 1.")


def _check_safety(learner) -> None:
    settings.number(learner, "safety", above=0)
    if learner.safety > 1:
        raise ValueError(
            f"safety is {learner.safety}: a factor of the largest stable step, 0 to 1."
        )
