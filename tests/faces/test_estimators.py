"""Estimators as scikit-learn's users handle them: searched, cloned, piped, saved, refused."""

import math
import os
import pickle
import subprocess
import sys
import warnings
from typing import Any

import jax
import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import widthwise as ww
from widthwise.data import Data
from widthwise.limits.base import EmptyCell
from widthwise.limits.table import lookup
from widthwise.lookup import UnknownName, learner_named, scaling_named
from widthwise.sklearn import WideClassifier, WideKernel, WideRegressor, _width

NET = ww.Dense() >> ww.Relu() >> ww.Readout()
STEPS = ww.GradientDescent(steps=20)
both = pytest.mark.parametrize("kind", [WideClassifier, WideRegressor])
SQUARED = [{}, {"learner": STEPS}, {"width": 16, "learner": STEPS}]
every_member = pytest.mark.parametrize(
    "settings",
    [
        *SQUARED,
        {"learner": ww.GradientDescent(steps=20, loss="cross_entropy")},
        {"width": 16, "learner": ww.Adam(steps=20, loss="cross_entropy"), "scaling": "MuP"},
    ],
    ids=["posterior", "tangent", "width-16", "tangent-entropy", "width-16-entropy"],
)


@pytest.fixture(scope="module")
def classes():
    X, y = make_blobs(60, n_features=4, centers=3, cluster_std=3.0, random_state=0)[:2]
    return StandardScaler().fit_transform(X), y


@pytest.fixture
def numbers(rng):
    X = rng.normal(size=(40, 3))
    return X, 50 + 20 * np.sin(X[:, 0]) + rng.normal(size=40)


# Searching


def learner_of(given):
    return learner_named(given) if isinstance(given, str) else given


def is_open(width, scaling, learner) -> bool:
    scaling, learner = scaling_named(scaling), learner_of(learner)
    if width != math.inf:
        return isinstance(learner, ww.Posterior) and learner.kernel == "ntk"
    try:
        lookup(NET, scaling, learner)
    except EmptyCell:
        return True
    return False


@pytest.mark.slow
def test_a_grid_of_widths_scalings_and_learners_scores_all_but_the_open_cells(classes):
    grid = {
        "width": [32, math.inf],
        "scaling": ["NTK", "MuP"],
        "learner": ["GradientDescent", ww.Adam(steps=20), ww.Posterior(kernel="ntk")],
    }
    half = ShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(WideClassifier(NET, random_state=0), grid, cv=half, error_score=np.nan)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        search.fit(*classes)
    found = search.cv_results_
    cells = [tuple(chosen[name] for name in grid) for chosen in found["params"]]
    scores = dict(zip(cells, found["mean_test_score"], strict=True))
    assert len(scores) == 12
    opened = {cell for cell in scores if is_open(*cell)}
    assert opened == {cell for cell, score in scores.items() if np.isnan(score)}
    assert all(score > 0.5 for cell, score in scores.items() if cell not in opened)
    assert not np.isnan(search.best_score_)
    refusals = "".join(str(w.message) for w in said if w.category is FitFailedWarning)
    for cell in opened:
        if cell[0] == math.inf:
            assert learner_of(cell[2]).kind in refusals
        else:
            assert "leave it out at width 32, or use width=inf." in refusals


def test_settings_inside_a_pipeline_can_be_searched(classes):
    model = make_pipeline(StandardScaler(), WideClassifier(NET))
    grid = {"wideclassifier__scaling": [ww.NTK(), ww.Standard()]}
    search = GridSearchCV(model, grid, cv=2).fit(*classes)
    assert search.best_params_["wideclassifier__scaling"] in (ww.NTK(), ww.Standard())
    assert cross_val_score(model, *classes, cv=3).mean() > 0.6


# Settings


@both
def test_settings_are_got_set_and_cloned(kind):
    model = kind(NET, width=128, scaling="MuP", learner=ww.Adam(lr=0.1), random_state=3)
    assert model.get_params() == {
        "network": NET, "width": 128, "scaling": "MuP", "learner": ww.Adam(lr=0.1),
        "random_state": 3, "memory": None,
    }  # fmt: skip
    again: Any = clone(model)
    assert again.get_params() == model.get_params()
    assert model.set_params(width=math.inf).width == math.inf
    assert "width=128" not in repr(model) and "scaling='MuP'" in repr(model)
    assert "MuP" in model._repr_html_()


@pytest.mark.parametrize("scaling, learner", [("ntk", "POSTERIOR"), ("NTK", "posterior")])
def test_names_are_read_in_any_case(numbers, scaling, learner):
    model = WideRegressor(NET, scaling=scaling, learner=learner).fit(*numbers)
    assert (model.run_.scaling, model.run_.limit) == (ww.NTK(), "NNGP")


def test_the_network_is_two_hidden_layers_unless_given(numbers):
    network = WideRegressor().fit(*numbers).run_.network
    hidden = "Dense(bias_variance=0.1) >> Relu()"
    assert repr(network) == f"{hidden} >> {hidden} >> Readout()"


@pytest.mark.parametrize("width", [64, 64.0, np.int64(64), np.float64(64)])
def test_a_whole_number_of_any_type_is_a_width(width):
    assert _width(width) == 64 and isinstance(_width(width), int)


@pytest.mark.parametrize(
    "width", [0, -1, 1.5, "wide", True, None, math.nan, -math.inf, np.bool_(True), 1j, [64]]
)
@both
def test_bad_widths_are_refused_in_fit(kind, width, numbers):
    model = kind(width=width, learner="GradientDescent")
    with pytest.raises(ValueError, match="^width is .*: give a positive whole number, or inf.$"):
        model.fit(*numbers)


REFUSED = [
    ({"scaling": "MuPP"}, UnknownName, "There is no scaling called 'MuPP': did you mean MuP?"),
    ({"learner": "Adm"}, UnknownName, "There is no learner called 'Adm': did you mean Adam?"),
    ({"scaling": 3}, TypeError, "scaling is 3: give one such as NTK()"),
    ({"scaling": None}, TypeError, "scaling is None"),
    ({"scaling": ww.MuP}, TypeError, "scaling is the class MuP: write MuP()."),
    ({"learner": ww.NTK()}, TypeError, "learner is NTK(): give one such as Posterior()"),
    ({"network": "Dense"}, TypeError, "network is 'Dense', which is no layer"),
    ({"network": ww.Dense() >> ww.Relu()}, ValueError, "does not end in Readout()"),
    (
        {"width": 64, "learner": "GradientFlow"},
        EmptyCell,
        "GradientFlow is for width=inf: at width",
    ),
    ({"learner": ww.Adam(weight_decay=0.1)}, EmptyCell, "leave weight_decay out"),
    ({"scaling": ww.Standard(), "learner": "Adam"}, EmptyCell, "Adam"),
    ({"learner": ww.GradientDescent(lr=1e6)}, ValueError, "lower it, or leave it out"),
    ({"random_state": "seed"}, ValueError, "'seed' cannot be used to seed"),
]


@pytest.mark.parametrize("settings, error, sentence", REFUSED, ids=lambda x: str(x)[:40])
@both
def test_bad_settings_are_refused_in_fit_in_one_sentence(kind, settings, error, sentence, numbers):
    model = kind(**settings)
    X, y = numbers
    with pytest.raises(error) as caught:
        model.fit(X, y > 50 if kind is WideClassifier else y)
    said = str(caught.value)
    assert sentence in said and "\n" not in said


def test_cross_entropy_needs_classes(numbers):
    with pytest.raises(ValueError, match="needs classes"):
        WideRegressor(NET, learner=ww.GradientDescent(loss="cross_entropy")).fit(*numbers)


def test_one_class_is_refused(numbers):
    with pytest.raises(ValueError, match="one class: give at least 2 classes"):
        WideClassifier().fit(numbers[0], np.zeros(40))


@both
def test_predicting_before_fit_is_refused(kind):
    with pytest.raises(NotFittedError):
        kind().predict(np.ones((2, 3)))


# Randomness


def trained(random_state, numbers):
    learner = ww.GradientDescent(steps=3, batch_size=7)
    return WideRegressor(NET, width=8, learner=learner, random_state=random_state).fit(*numbers)


def test_a_random_state_fixes_initial_weights_and_batches(numbers):
    X = numbers[0]
    one, same, other = (trained(seed, numbers).predict(X) for seed in (0, np.int64(0), 1))
    assert np.array_equal(one, same) and not np.allclose(one, other)
    state = np.random.RandomState(5)
    first, second = (trained(state, numbers).predict(X) for _ in range(2))
    again = trained(np.random.RandomState(5), numbers).predict(X)
    assert np.array_equal(first, again) and not np.allclose(first, second)


def test_without_a_random_state_numpy_s_global_one_decides(numbers):
    X, before = numbers[0], np.random.get_state()
    try:
        np.random.seed(0)
        first, second = (trained(None, numbers).predict(X) for _ in range(2))
        np.random.seed(0)
        again = trained(None, numbers).predict(X)
    finally:
        np.random.set_state(before)
    assert np.array_equal(first, again) and not np.allclose(first, second)


def test_an_estimator_and_a_member_of_one_seed_agree(numbers):
    X, y = numbers
    run = trained(4, numbers).run_
    targets = ((y - y.mean()) / y.std())[:, None]
    data = Data.of(X, targets, X[:0], targets[:0], task="regression")
    member = ww.Member(NET, 8, ww.NTK(), ww.GradientDescent(steps=3, batch_size=7))
    expected = member.train(data, seed=4, order=4, logs=2)
    assert np.array_equal(run.predict(X).value, expected.predict(X).value)


# Classes


@every_member
def test_probabilities_sum_to_one_and_the_largest_is_predicted(settings, classes):
    X, y = classes
    model = WideClassifier(NET, random_state=0, **settings).fit(X, y)
    chances = model.predict_proba(X)
    assert chances.shape == (60, 3) and (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-12)
    assert np.array_equal(model.predict(X), model.classes_[chances.argmax(axis=1)])
    assert model.score(X, y) > 0.6
    # a row's prediction does not depend on the rows beside it
    np.testing.assert_allclose(model.predict_proba(X[:1]), chances[:1], atol=1e-9)


@pytest.mark.parametrize(
    "names",
    [
        np.array(["ja", "nein", "vielleicht"]),
        np.array(["ja", "nein", "vielleicht"], dtype=object),
        np.array([7, -2, 40]),
        np.array([1.0, 2.0, 0.0]),
        np.array([False, True, True]),
    ],
    ids=["strings", "objects", "integers", "floats", "booleans"],
)
def test_labels_of_any_kind_come_back(names, classes):
    X, y = classes
    model = WideClassifier(NET).fit(X, names[y])
    found = model.predict(X)
    assert np.array_equal(model.classes_, np.unique(names))
    assert found.dtype == names.dtype and model.score(X, names[y]) > 0.6
    assert model.run_.task == "classification"


def test_numbers_for_labels_are_refused(numbers):
    with pytest.raises(ValueError, match="continuous"):
        WideClassifier().fit(*numbers)


# Numbers


@pytest.mark.parametrize("settings", SQUARED, ids=repr)
def test_several_targets_are_fitted_each_in_its_units(settings, numbers):
    X, y = numbers
    many = np.column_stack([y, 1e-3 * y - 7])
    alone = WideRegressor(NET, random_state=0, **settings).fit(X, y)
    model = WideRegressor(NET, random_state=0, **settings).fit(X, many)
    assert alone.predict(X).shape == (40,) and model.predict(X).shape == (40, 2)
    assert WideRegressor(NET, **settings).fit(X, y[:, None]).predict(X).shape == (40, 1)
    if "width" not in settings:  # the same for all outputs; a finite draw is not
        expected = np.column_stack([alone.predict(X), 1e-3 * alone.predict(X) - 7])
        np.testing.assert_allclose(model.predict(X), expected, rtol=1e-6)


@pytest.mark.parametrize("targets", [1, 2])
def test_the_posterior_is_that_of_scikit_learn_s_gaussian_process(targets, numbers):
    X, y = numbers
    y = y if targets == 1 else np.column_stack([y, 1e-3 * y**2])
    model = WideRegressor(NET, learner=ww.Posterior(noise=0.05)).fit(X, y)
    process = GaussianProcessRegressor(WideKernel(NET), alpha=0.05, normalize_y=True).fit(X, y)
    rows = np.vstack([X[:5], X[:6] + 1])
    for asked in ({"return_std": True}, {"return_cov": True}):
        for found, expected in zip(
            model.predict(rows, **asked), process.predict(rows, **asked), strict=True
        ):
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(y).max())
    np.testing.assert_allclose(model.noise_, 0.05 * y.var(axis=0))


def test_the_standard_deviation_is_the_root_of_the_covariance_in_any_number_of_rows(numbers, rng):
    model = WideRegressor(NET, learner=STEPS).fit(*numbers)
    rows = rng.normal(size=(1100, 3))
    value, std = model.predict(rows, return_std=True)
    again, covariance = model.predict(rows, return_cov=True)
    np.testing.assert_allclose(value, again, rtol=1e-12)
    np.testing.assert_allclose(std, np.sqrt(np.diagonal(covariance)), rtol=1e-6, atol=1e-6)
    assert model.noise_ == 0


def test_std_and_covariance_exclude_each_other(numbers):
    model = WideRegressor(NET).fit(*numbers)
    with pytest.raises(RuntimeError, match="ask for one"):
        model.predict(numbers[0], return_std=True, return_cov=True)


@pytest.mark.parametrize("asked", ["return_std", "return_cov"])
def test_a_member_without_covariance_says_so(asked, numbers):
    model = WideRegressor(NET, width=8, learner=STEPS).fit(*numbers)
    with pytest.raises(
        ValueError, match="network at width 8 trained by GradientDescent: use width=inf"
    ):
        model.predict(numbers[0], **{asked: True})


def test_a_constant_target_is_predicted(numbers):
    X = numbers[0]
    np.testing.assert_allclose(WideRegressor(NET).fit(X, np.full(40, 3.0)).predict(X), 3.0)


# Saving


@every_member
def test_a_fitted_estimator_is_pickled(settings, classes):
    X, y = classes
    model = make_pipeline(StandardScaler(), WideClassifier(NET, **settings)).fit(X, y)
    assert np.array_equal(
        pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X)
    )


def test_a_saved_estimator_predicts_the_same_in_a_fresh_process(tmp_path, numbers):
    X, y = numbers
    members = WideRegressor(NET).fit(X, y), WideRegressor(NET, width=8, learner=STEPS).fit(X, y)
    joblib.dump((members, X), tmp_path / "models")
    program = (
        "import joblib, sys; members, X = joblib.load(sys.argv[1]); "
        "joblib.dump([member.predict(X) for member in members], sys.argv[2])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "models"), str(tmp_path / "found")]
    # what is compiled alike is equal bit by bit
    quick = str(int(jax.config.read("jax_disable_most_optimizations")))
    subprocess.run(command, check=True, env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": quick})
    for found, member in zip(joblib.load(tmp_path / "found"), members, strict=True):
        assert np.array_equal(found, member.predict(X))
