"""The posterior within given memory: by all ways the same, and refused where none is left."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from slowly import cases

import widthwise as ww
from widthwise.family import Family, Member
from widthwise.learner import GradientDescent, GradientFlow, Posterior
from widthwise.limits import large
from widthwise.limits.large import System, way
from widthwise.limits.noise import best_noise
from widthwise.limits.table import EmptyCell
from widthwise.network import Dense, Readout, Relu
from widthwise.resources import Resources
from widthwise.run import Run
from widthwise.scaling import NTK
from widthwise.sklearn import WideClassifier, WideRegressor

NET = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
DATA = ww.data.load("digits", train=600, test=100)
MEMORY = {"packed": "10MB", "tiles": "6MB"}


def trained(learner, **resources) -> Run:
    member = Member(NET, math.inf, NTK(), learner)
    return member.train(DATA, resources=Resources(**resources))


@pytest.mark.parametrize(
    "kernel, how, where",
    cases(
        [("ntk", "tiles", "computed")],
        [("nngp", "packed", "computed"), ("nngp", "packed", "stored"),
         ("nngp", "tiles", "computed"), ("nngp", "tiles", "stored"),
         ("ntk", "packed", "computed"), ("ntk", "packed", "stored"), ("ntk", "tiles", "stored")],
    ),
)  # fmt: skip
def test_all_ways_agree(tmp_path, kernel, how, where):
    learner = Posterior(noise=0.01, kernel=kernel)
    exact = trained(learner)
    store = tmp_path / "store" if where == "stored" else None
    found = trained(learner, memory=MEMORY[how], store=store)
    told = {"packed": "float32", "tiles": "store" if store else "anew"}[how]
    assert any(told in note for note in found.notes)
    wanted, got = (run.predict(DATA.x_test, covariance=True) for run in (exact, found))
    np.testing.assert_allclose(got.value, wanted.value, atol=2e-5)
    assert got.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(got.covariance, wanted.covariance, atol=1e-5)
    np.testing.assert_allclose(found.trajectory.test_loss, exact.trajectory.test_loss, rtol=1e-4)
    np.testing.assert_allclose(found.trajectory.train_loss, exact.trajectory.train_loss, rtol=1e-3)


@pytest.mark.slow
def test_saved_and_loaded(tmp_path):
    found = trained(Posterior(noise=0.01), memory=MEMORY["tiles"])
    found.save(tmp_path / "run")
    assert (tmp_path / "run").stat().st_size < 1e6  # rows and weights, and no matrix
    again = Run.load(tmp_path / "run")
    wanted, got = (run.predict(DATA.x_test[:5], covariance=True) for run in (found, again))
    assert got.covariance is not None and wanted.covariance is not None
    np.testing.assert_allclose(got.covariance, wanted.covariance, atol=1e-9)
    assert pickle.loads(pickle.dumps(found)).notes == found.notes


def test_evidence_by_quadrature_chooses_as_the_spectrum_does():
    rng = np.random.default_rng(0)
    noisy = DATA.y_train + 0.5 * rng.normal(size=DATA.y_train.shape)
    exact, _ = best_noise(ww.kernel_matrix(NET, DATA.x_train, which="nngp"), noisy)
    resources = Resources(memory=MEMORY["packed"])
    system = System(NET, DATA.x_train, "nngp", scaling=NTK(), resources=resources)
    found, told = large.best_noise(system, noisy)
    assert found == pytest.approx(exact, rel=0.05)
    assert exact == pytest.approx(0.25, rel=0.2)
    assert "40 products" in told


@pytest.mark.parametrize(
    ("memory", "wanted"), [("24GB", "packed"), ("12GB", "packed"), ("4GB", "tiles")]
)
def test_ways_of_fifty_thousand_rows(memory, wanted):
    assert way(50_000, 10_000, 784, Resources(memory=memory)) == wanted
    assert way(5_000, 1_000, 784, Resources(memory=memory)) == "whole"
    assert way(5_000, 1_000, 784, Resources(memory=memory, store=Path("s"))) == "packed"


def test_too_little_memory_is_told():
    with pytest.raises(MemoryError, match="need 4 MB and 1 MB may be used: use fewer rows"):
        trained(Posterior(), memory="1MB")


@pytest.mark.parametrize("learner", [GradientDescent(steps=1), GradientFlow()])
def test_others_have_no_use_for_resources(learner):
    with pytest.raises(ValueError, match="has no use for memory"):
        trained(learner, memory="4GB")


def test_leaving_out_one_row_needs_the_spectrum():
    with pytest.raises(EmptyCell, match="criterion='evidence'"):
        trained(Posterior(criterion="leave_one_out"), memory=MEMORY["tiles"])


def test_monte_carlo_kernels_are_solved_with_as_a_whole(tmp_path):
    member = Member(ww.MonteCarlo(NET, samples=2), math.inf, NTK(), Posterior(noise=0.1))
    with pytest.raises(EmptyCell, match="as a whole"):
        member.train(DATA, resources=Resources(store=tmp_path))


def test_a_cluster_needs_a_store():
    with pytest.raises(ValueError, match="give the folder of one"):
        Resources(cluster="local")
    with pytest.raises(ValueError, match="is no size"):
        Resources(memory="plenty")


@pytest.mark.slow
def test_estimators_stay_within_memory():
    labels = DATA.y_train.argmax(axis=1)
    learner = Posterior(noise=0.01)
    plain = WideClassifier(NET, learner=learner).fit(DATA.x_train, labels)
    small = WideClassifier(NET, learner=learner, memory="6MB").fit(DATA.x_train, labels)
    wanted, found = (model.predict_proba(DATA.x_test) for model in (plain, small))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    numbers = DATA.x_train[:, 20]
    plain = WideRegressor(NET, learner=learner).fit(DATA.x_train, numbers)
    small = WideRegressor(NET, learner=learner, memory="6MB").fit(DATA.x_train, numbers)
    wanted, found = (model.predict(DATA.x_test, return_std=True) for model in (plain, small))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_families_have_whole_kernels():
    found = Family(NET, NTK(), Posterior(noise=0.1), widths=(math.inf,)).train(DATA, progress=False)
    assert found.limit is not None and found.limit.notes == ()
