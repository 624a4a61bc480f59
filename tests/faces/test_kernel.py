"""A network's kernel inside scikit-learn's own machines."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# scikit-learn carries no types, and what pyright infers of its machines is too narrow

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC, SVR
from slowly import cases

import widthwise as ww
from widthwise import sklearn
from widthwise.kernels import kernel_diagonal, kernel_matrix
from widthwise.sklearn import WideKernel

NET = ww.Dense(bias_variance=0.1) >> ww.Relu() >> ww.Dense() >> ww.Erf() >> ww.Readout()
both = pytest.mark.parametrize("which", ["nngp", "ntk"])


@pytest.fixture
def numbers(rng):
    X = rng.normal(size=(40, 3))
    return X, np.sin(X[:, 0]) + 0.1 * rng.normal(size=40)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X[::2], y[::2]


@both
def test_it_is_the_kernel_of_the_network(which, numbers):
    X = numbers[0]
    kernel = WideKernel(NET, which)
    np.testing.assert_array_equal(kernel(X), getattr(kernel_matrix(NET, X), which))
    np.testing.assert_array_equal(kernel(X, X.copy()), kernel(X))
    np.testing.assert_allclose(kernel(X, X[:7]), kernel(X)[:, :7], rtol=1e-7)
    np.testing.assert_allclose(kernel(X.tolist(), X[:7].tolist()), kernel(X, X[:7]))


@both
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_its_diagonal_is_that_of_the_matrix(which, rows, numbers):
    X = numbers[0][:rows]
    kernel = WideKernel(NET, which)
    np.testing.assert_allclose(kernel.diag(X), np.diagonal(kernel(X)), rtol=1e-12)


@pytest.mark.parametrize("scaling", [ww.NTK(), ww.Standard(), ww.MuP()])
def test_the_diagonal_follows_the_scaling(scaling, numbers):
    X = numbers[0]
    whole = kernel_matrix(NET, X, scaling=scaling)
    diagonal = kernel_diagonal(NET, X, scaling=scaling)
    for name in ("nngp", "ntk"):
        np.testing.assert_allclose(
            getattr(diagonal, name), np.diagonal(getattr(whole, name)), rtol=1e-12
        )


def test_its_diagonal_is_one_compiled_call(numbers, monkeypatch):
    monkeypatch.setattr(sklearn, "kernel_matrix", None)
    assert WideKernel(NET).diag(np.tile(numbers[0], (100, 1))).shape == (4000,)


def test_it_has_no_hyperparameters_and_is_a_value():
    kernel = WideKernel(NET)
    assert kernel.hyperparameters == [] and kernel.theta.size == kernel.bounds.size == 0
    assert kernel.n_dims == 0 and not kernel.is_stationary() and kernel.requires_vector_input
    assert kernel == WideKernel(NET) == clone(kernel) == kernel.clone_with_theta(kernel.theta)
    assert kernel == pickle.loads(pickle.dumps(kernel))
    assert kernel != WideKernel(NET, "ntk") and kernel != WideKernel() and kernel != RBF()
    assert kernel.get_params() == {"network": NET, "which": "nngp"}
    assert repr(WideKernel()) == "WideKernel()"
    assert repr(WideKernel(NET, which="ntk")) == f"WideKernel({NET!r}, which='ntk')"


def test_its_gradient_is_empty(numbers):
    value, gradient = WideKernel(NET)(numbers[0], eval_gradient=True)
    assert value.shape == (40, 40) and gradient.shape == (40, 40, 0)


@pytest.mark.parametrize("which", ["NTK", "Nngp"])
def test_names_are_read_in_any_case(which, numbers):
    X = numbers[0]
    np.testing.assert_array_equal(WideKernel(NET, which)(X), WideKernel(NET, which.lower())(X))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_and_rows_are_refused_when_called(numbers):
    X = numbers[0]
    with pytest.raises(ValueError, match="which is 'rbf': choose 'nngp' or 'ntk'"):
        WideKernel(NET, "rbf")(X)
    with pytest.raises(ValueError, match="which is None"):
        WideKernel(NET).set_params(which=None).diag(X)
    with pytest.raises(TypeError, match="network is 3, which is no layer"):
        WideKernel(NET).set_params(network=3)(X)
    with pytest.raises(ValueError, match="leave Y out"):
        WideKernel(NET)(X, X, eval_gradient=True)
    with pytest.raises(ValueError, match="NaN or infinite"):
        WideKernel(NET)(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="columns"):
        WideKernel(NET)(X, X[:, :2])


@pytest.mark.parametrize(
    "compose, dimensions",
    cases(
        [
            (lambda k: k + WhiteKernel(1.0), 1),
            (lambda k: k + ConstantKernel(0.5) * RBF(1.0) + WhiteKernel(1.0), 3),
        ],
        [
            (lambda k: ConstantKernel(1.0) * k + WhiteKernel(1.0), 2),
            (lambda k: k * ConstantKernel(1.0) + WhiteKernel(1.0), 2),
            (lambda k: k**2 + WhiteKernel(1.0), 1),
        ],
    ),
    ids=["sum", "mixture", "product", "product-right", "power"],
)
def test_the_hyperparameters_of_kernels_beside_it_are_optimised(compose, dimensions, numbers):
    kernel = compose(WideKernel(NET))
    assert kernel.n_dims == dimensions
    X, y = numbers
    fixed = GaussianProcessRegressor(kernel, optimizer=None).fit(X, y)
    model = GaussianProcessRegressor(kernel).fit(X, y)
    assert (
        model.log_marginal_likelihood_value_ > fixed.log_marginal_likelihood_value_ + 1  # type: ignore[operator]
    )
    assert model.kernel_ != kernel
    theta = model.kernel_.theta
    _, gradient = model.log_marginal_likelihood(theta, eval_gradient=True)
    steps = 1e-5 * np.eye(dimensions)
    rise = [
        model.log_marginal_likelihood(theta + e) - model.log_marginal_likelihood(theta - e)
        for e in steps
    ]
    np.testing.assert_allclose(gradient, np.array(rise) / 2e-5, atol=1e-3)
    assert model.score(X, y) > 0.5


def test_a_gaussian_process_with_it_classifies(iris):
    X, y = iris
    kernel = ConstantKernel(1.0, (1e-2, 1e8)) * WideKernel(NET)
    model = GaussianProcessClassifier(kernel).fit(X, y)
    assert model.score(X, y) > 0.9
    assert GaussianProcessClassifier(WideKernel(NET)).fit(X, y).predict_proba(X).shape == (75, 3)


@both
def test_a_support_vector_machine_with_it_is_that_of_the_precomputed_matrix(which, iris):
    X, y = iris
    kernel = WideKernel(NET, which)
    train, test = X[::2], X[1::2]
    model = SVC(C=100, kernel=kernel).fit(train, y[::2])
    given = SVC(C=100, kernel="precomputed").fit(kernel(train), y[::2])
    np.testing.assert_allclose(
        model.decision_function(test), given.decision_function(kernel(test, train)), rtol=1e-10
    )
    assert model.score(test, y[1::2]) > 0.9


def test_support_vector_regression_with_it(numbers):
    X, y = numbers
    model, given = SVR(kernel=WideKernel(NET)), SVR(kernel="precomputed")
    expected = given.fit(WideKernel(NET)(X), y).predict(WideKernel(NET)(X))
    np.testing.assert_allclose(model.fit(X, y).predict(X), expected, rtol=1e-10)


def test_its_settings_are_searched_inside_a_machine(iris):
    search = GridSearchCV(
        SVC(C=100, kernel=WideKernel(NET)), {"kernel__which": ["nngp", "ntk"]}, cv=2
    )
    assert search.fit(*iris).best_score_ > 0.9
