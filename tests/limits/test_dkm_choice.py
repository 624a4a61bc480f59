"""The nu of deep kernel machines, chosen on rows that are held out."""

import math
from typing import Any

import numpy as np
import pytest
from slowly import cases

import widthwise as ww
from widthwise.data import Data, from_arrays
from widthwise.family import Member
from widthwise.inference import Inducing
from widthwise.learner import Posterior
from widthwise.limits import EmptyCell
from widthwise.limits.dkm.choice import NUS, chosen, split
from widthwise.limits.dkm.graph import graph_posterior
from widthwise.network import Dense, Readout, Relu

NET = Dense() >> Relu() >> Dense(times=2) >> Readout(weight_variance=1.0)
LINEAR = Dense() >> Dense() >> Readout()


def data(rows: int, noise: float = 0.1) -> Data:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, 3))
    y = np.stack([np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], x[:, 0] * x[:, 1]], axis=1)
    return from_arrays(x, y + noise * rng.normal(size=y.shape), task="regression", test=10)


def trained(nu: Any, given: Data, net: Any = NET, noise: float | None = None, **settings) -> Any:
    learner = Posterior(prior="deep_gp", nu=nu, noise=noise, **settings)
    return Member(net, math.inf, ww.MuP(), learner).train(given)


@pytest.mark.parametrize("inducing", cases([None], [Inducing(20)]))
def test_it_is_what_rows_held_out_choose(inducing):
    """Machines of every nu, each trained for itself, on the rows that are left."""
    given = data(60)
    x, y = given.x_train, given.y_train
    out, rest = split(len(x))
    assert len(out) == len(x) // 5 and sorted([*out, *rest]) == list(range(len(x)))
    part = Data.of(x[rest], y[rest], x[out], y[out], task="regression")
    rows = []
    for nu in NUS:
        run = trained(nu, part, inducing=inducing)
        found = run.predict(x[out], covariance=True)
        variance = (found.std**2 + run.state.noise)[:, None]
        logs = -0.5 * (np.log(2 * np.pi * variance) + (y[out] - found.value) ** 2 / variance)
        rows.append(logs.sum(axis=1))
    behind = max(rows, key=np.mean) - np.array(rows)
    near = behind.mean(axis=1) <= behind.std(axis=1, ddof=1) / math.sqrt(len(out))
    wanted = NUS[int(np.argmax(near))]
    assert wanted != math.inf  # features that learn are better

    run = trained(None, given, inducing=inducing)
    assert f"chose nu {wanted:g} of inf, 100, 10, 1" in run.notes[0]
    told = [float(log) for log in run.notes[0].rstrip(".").split(" is ")[1].split(", ")]
    np.testing.assert_allclose(told, np.mean(rows, axis=1), rtol=0.01, atol=0.01)
    same = trained(wanted, given, inducing=inducing).predict(given.x_test, covariance=True)
    found = run.predict(given.x_test, covariance=True)
    np.testing.assert_allclose(found.value, same.value, atol=0.01)
    np.testing.assert_allclose(found.covariance, same.covariance, atol=0.01)


def test_the_prior_stays_where_nothing_is_to_be_learned():
    given = data(60)
    y = np.random.default_rng(3).normal(size=(len(given.x_train), 1))
    noisy = Data.of(given.x_train, y, given.x_test, given.y_test[:, :1], task="regression")
    run = trained(None, noisy, noise=1.0)
    assert "chose nu inf" in run.notes[0]
    lazy = Member(NET, math.inf, ww.NTK(), Posterior(noise=1.0)).train(noisy)
    found, wanted = (one.predict(given.x_test).value for one in (run, lazy))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_of_equal_ones_the_first_is_chosen():
    """The second is behind by 0.1, of which the standard error is 0.13; the first by more."""
    rng = np.random.default_rng(0)
    best, noise = rng.normal(size=400), rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    logs = {math.inf: best - 0.2 - noise, 100.0: best - 0.1 + 2.6 * noise, 10.0: best}
    found = chosen(logs)
    assert found.nu == 100 and found.logs == tuple(np.mean(own) for own in logs.values())
    logs[100.0] = best - 0.1 + noise
    assert chosen(logs).nu == 10


def test_where_there_is_none():
    given = data(19)  # nine for training
    with pytest.raises(EmptyCell, match="there are 9 rows: give a nu, or 10 rows at least"):
        trained(None, given)
    refused = "Only DeepKernelMachine chooses nu"
    for net, width, learner in [
        (NET, math.inf, Posterior(noise=0.1, nu=None)),
        (LINEAR, 8, Posterior(noise=0.1, nu=None)),
        (
            NET,
            math.inf,
            Posterior(0.1, prior="deep_gp", nu=None, inducing=Inducing(5, batch_size=5)),
        ),
    ]:
        with pytest.raises(EmptyCell, match=refused):
            Member(net, width, ww.MuP(), learner).train(given)
    with pytest.raises(ValueError, match=refused):
        graph_posterior(
            NET, np.eye(3), np.eye(3), np.ones((1, 1)), np.array([0]),
            Posterior(0.1, prior="deep_gp", nu=None),
        )  # fmt: skip
    with pytest.raises(ValueError, match="give numbers from 0 to inf, or None"):
        Posterior(nu=-1.0)
