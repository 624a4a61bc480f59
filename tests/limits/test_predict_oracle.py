"""Predictions of both lazy limits against reference values of another implementation.

Its losses are divided by rows times outputs, so a time t at step size lr there is lr t / outputs
here; its `diag_reg` is relative to the mean of the kernel's diagonal.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slowly import cases

from widthwise.learner import GradientDescent, GradientFlow, Posterior
from widthwise.limits import Start, condition, descend, lookup
from widthwise.limits.descent import largest_stable_step
from widthwise.network import Dense, Erf, Readout
from widthwise.problem import Problem
from widthwise.scaling import NTK

ORACLE = dict(np.load(Path(__file__).parents[1] / "oracle" / "predict.npz"))
LR, OUTPUTS = 0.5, 3


def network(lr_multiplier: float = 1.0):
    bias: Any = dict(bias_variance=0.01, bias_multiplier=0.1)
    hidden = Dense(weight_variance=1.5**2, **bias, lr_multiplier=lr_multiplier)
    return hidden >> Erf() >> hidden >> Erf() >> Readout(weight_variance=1.0, **bias)


def trained(learner, *, targets="y_train", start=None, frozen=False) -> Any:
    x, y = ORACLE["x_train"], ORACLE[targets]
    problem = Problem(x, y, ORACLE["x_test"], np.zeros((4, OUTPUTS)), 0.0, "regression")
    limit = lookup(network(0.0 if frozen else 1.0), NTK(), learner)
    return limit.prepare(problem, order=0, logs=8).train(start)


def ridge(kernel: str) -> float:
    return 1e-3 * float(np.mean(np.diagonal(ORACLE[f"{kernel}_dd"])))


def close(found, name, rtol=1e-8):
    expected = ORACLE[name]
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
@pytest.mark.parametrize("time", ["1", "50", "inf"])
def test_ensembles(kernel, time):
    """nngp: only the readout is trained; ntk: all layers."""
    learner = GradientFlow(time=LR * float(time) / OUTPUTS, ridge=ridge(kernel))
    state = trained(learner, frozen=kernel == "nngp").state
    # At kernel "nngp", every member there also fits noise of the ridge's size on its targets.
    noise = ridge(kernel) if kernel == "nngp" else 0.0
    found = state.predict(ORACLE["x_test"], True)
    close(found.value, f"ensemble_{kernel}_t{time}_mean")
    reached = ORACLE[f"{kernel}_td"] @ state.response
    close(found.covariance + noise * reached @ reached.T, f"ensemble_{kernel}_t{time}_cov")
    # At the training rows it predicts with the ridge added to the kernel: y at infinite time.
    left = np.eye(12) - (ORACLE[f"{kernel}_dd"] + ridge(kernel) * np.eye(12)) @ state.response
    close(ORACLE["y_train"] - left @ ORACLE["y_train"], f"ensemble_train_{kernel}_t{time}_mean")
    prior = ORACLE["nngp_dd"] + noise * np.eye(12)
    expected = ORACLE[f"ensemble_train_{kernel}_t{time}_cov"]
    np.testing.assert_allclose(left @ prior @ left.T, expected, rtol=1e-8, atol=1e-10)


def test_posteriors():
    kernels: Any = ("nngp", "nngp"), ("ntk", "ntkgp")
    for kernel, name in kernels:
        learner = Posterior(noise=ridge(kernel), kernel=kernel)
        found = trained(learner).state.predict(ORACLE["x_test"], True)
        close(found.value, f"gp_{name}_mean")
        close(found.covariance, f"gp_{name}_cov")
    absolute = trained(Posterior(noise=1e-3)).state.predict(ORACLE["x_test"], False)
    close(absolute.value, "gp_abs_nngp_mean")


def test_trained_ensemble_to_the_end():
    found = trained(GradientFlow(ridge=ridge("ntk"))).state.predict(ORACLE["x_test"], True)
    close(found.value, "gp_ntk_mean")
    close(found.covariance, "gp_ntk_cov")


def from_start():
    return Start(ORACLE["fx_train_0"], ORACLE["fx_test_0"], lambda x: ORACLE["fx_train_0"])


@pytest.mark.parametrize("time", ["1", "50", "inf"])
def test_from_an_initial_function(time):
    found = trained(GradientFlow(time=LR * float(time) / OUTPUTS), start=from_start())
    close(found.trajectory.predictions[-1], f"mse_t{time}_test")
    close(found.state.predict(ORACLE["x_train"], False).value, f"mse_t{time}_train", rtol=1e-7)


def flow(time: float, momentum: float | None, loss) -> GradientFlow:
    if momentum is None:
        return GradientFlow(time=LR * time / OUTPUTS, loss=loss)
    lr = LR / OUTPUTS
    return GradientFlow(time * math.sqrt(lr), friction=(1 - momentum) / math.sqrt(lr), loss=loss)


@pytest.mark.parametrize(
    "loss, name, targets", [("mse", "mse", "y_train"), ("cross_entropy", "xent", "y_onehot")]
)
@pytest.mark.parametrize("momentum", cases([None], [0.9]))
def test_flows(loss, name, targets, momentum):
    """The reference's own tolerance is 1e-6."""
    for at, time in enumerate((0.5, 5.0, 20.0)):
        found = trained(flow(time, momentum, loss), targets=targets, start=from_start())
        expected = ORACLE[f"ode_{name}_mom{momentum}_test"][at]
        np.testing.assert_allclose(found.trajectory.predictions[-1], expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("momentum, name", [(0.0, "max_lr"), (0.9, "max_lr_mom.9")])
def test_largest_stable_step(momentum, name):
    found = largest_stable_step(ORACLE["ntk_dd"], GradientDescent(momentum=momentum))
    assert found * OUTPUTS == pytest.approx(float(ORACLE[name]), rel=1e-10)


FROM = {
    "cross": ORACLE["ntk_td"],
    "start": ORACLE["fx_train_0"],
    "new_start": ORACLE["fx_test_0"],
}


@pytest.mark.parametrize("time", ["1", "50", "inf"])
def test_flows_of_given_matrices(time):
    found = descend(
        ORACLE["ntk_dd"], ORACLE["y_train"], GradientFlow(time=LR * float(time) / OUTPUTS), **FROM
    )
    close(found.new[-1], f"mse_t{time}_test")
    close(found.train[-1], f"mse_t{time}_train", rtol=1e-7)


def test_a_flow_of_given_matrices_on_cross_entropy():
    """The reference's own tolerance is 1e-6."""
    found = descend(ORACLE["ntk_dd"], ORACLE["y_onehot"], flow(5.0, 0.9, "cross_entropy"), **FROM)
    expected = ORACLE["ode_xent_mom0.9_test"][1]
    np.testing.assert_allclose(found.new[-1], expected, rtol=2e-6, atol=2e-7)


def test_given_matrices_from_zero_leave_the_mean_over_initialisations():
    learner = GradientFlow(time=LR * 50 / OUTPUTS, ridge=ridge("ntk"))
    close(
        descend(ORACLE["ntk_dd"], ORACLE["y_train"], learner, cross=ORACLE["ntk_td"]).new[-1],
        "ensemble_ntk_t50_mean",
    )


@pytest.mark.parametrize("kernel, name", [("nngp", "nngp"), ("ntk", "ntkgp")])
def test_posteriors_of_given_matrices(kernel, name):
    train, cross, prior = (ORACLE[f"{kernel}_{which}"] for which in ("dd", "td", "tt"))
    found = condition(train, ORACLE["y_train"], ridge(kernel), cross=cross, prior=prior)
    close(found.value, f"gp_{name}_mean")
    close(found.covariance, f"gp_{name}_cov")
    assert condition(train, ORACLE["y_train"], ridge(kernel), cross=cross).covariance is None
