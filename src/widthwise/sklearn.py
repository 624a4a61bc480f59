"""Networks of any width as scikit-learn estimators, and their kernels for its machines."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from widthwise.data import Data
from widthwise.family import Member
from widthwise.kernels import kernel_diagonal, kernel_matrix
from widthwise.learner import AbstractLearner
from widthwise.lookup import learner_named, scaling_named
from widthwise.network import AbstractLayer, usual_network
from widthwise.resources import Resources
from widthwise.run import OutputsPrediction, Prediction, Run
from widthwise.scaling import AbstractScaling

ROWS = 1024  # rows predicted at once: memory for so many times the training rows is enough


class WideClassifier(ClassifierMixin, BaseEstimator):
    """A classifier: a network at one width, infinity among them.

    >>> from sklearn.datasets import load_wine
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_wine(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), WideClassifier()).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    >>> model.predict_proba(X[:5]).shape
    (5, 3)

    Width is an ordinary hyperparameter: search it, infinity included, with `GridSearchCV`. A
    combination whose member cannot be computed is refused by name in `fit`, and so scores NaN.

    Args:
        network: layers that end in `Readout()`, or `MonteCarlo` of them where a layer has no closed
            form; None is two hidden ReLU layers whose biases start with variance 0.1.
        width: a positive whole number, or `inf`.
        scaling: a scaling such as `NTK()`, or its name in any case.
        learner: a learner such as `GradientDescent(steps=100)`, or its name in any case. The
            default, `Posterior`, samples finite networks with nonlinearities, which takes long;
            `GradientDescent` and `Adam` train every width.
        random_state: seeds initial weights and batches: an int, a `RandomState`, or None for
            other ones in every call. At width inf only mini-batches are random.
        memory: a size such as "4GB" that the kernel of a `Posterior` stays within, by another way
            of solving where it must; None is four fifths of what is free.

    Features are used as they are: put a `StandardScaler` in front. Labels are of any kind that
    scikit-learn knows as classes; there are at least two.

    After `fit`: `classes_` (k,), the labels in order; `run_`, the Run with its trajectory, notes
    and sources; `n_features_in_`.
    """

    @no_type_check  # scikit-learn's convention: hyperparameters are checked in fit
    def __init__(
        self,
        network: AbstractLayer | None = None,
        *,
        width: float = math.inf,
        scaling: AbstractScaling | str = "NTK",
        learner: AbstractLearner | str = "Posterior",
        random_state: int | np.random.RandomState | None = None,
        memory: str | None = None,
    ):
        self.network = network
        self.width = width
        self.scaling = scaling
        self.learner = learner
        self.random_state = random_state
        self.memory = memory

    def fit(self, X, y) -> "WideClassifier":
        """Trains on rows X (n, d) with labels y (n,).

        Raises ValueError or TypeError, in one sentence, for settings, rows or labels that cannot
        be used, `EmptyCell` for a member that cannot be computed, `Diverged` where training blows
        up; all but TypeError are ValueErrors.
        """
        member, seed = _member(self), _seed(self.random_state)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Every label is {self.classes_[0]!r}, one class: give at least 2 classes."
            )
        data = _data(X, np.eye(len(self.classes_))[labels], tuple(map(str, self.classes_)))
        self.run_ = _trained(self, member, data, seed)
        return self

    def predict_proba(self, X) -> Float[np.ndarray, "m k"]:
        """Class probabilities of rows X (m, d), in the order of `classes_`; each row sums to 1."""
        check_is_fitted(self)
        X = _rows(self, X)
        return np.concatenate([self.run_.predict_proba(part) for part in _parts(X)])

    def predict(self, X) -> Shaped[np.ndarray, " m"]:
        """The likeliest label of each row of X (m, d)."""
        likeliest = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[likeliest]


class WideRegressor(RegressorMixin, BaseEstimator):
    """A regressor: a network at one width, infinity among them.

    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), WideRegressor()).fit(X, y)
    >>> mean, std = model.predict(X[:3], return_std=True)
    >>> mean.shape, std.shape
    ((3,), (3,))
    >>> new_targets_std = np.sqrt(std**2 + model[-1].noise_)

    `std` is that of the function, not of new targets: under `Posterior` it is what the data leave
    open, and a new target varies by `noise_` more; under gradient descent it is the spread over
    initial weights. Targets are standardised inside, each on its own; predictions, standard
    deviations and `noise_` are in the targets' units.

    Args:
        network, width, scaling, learner, random_state, memory: as for `WideClassifier`.

    After `fit`: `noise_`, the variance of the targets' noise that the member knows of, 0.0 where
    it knows none, a number or one for each target (k,); `run_` and `n_features_in_`.
    """

    @no_type_check  # scikit-learn's convention: hyperparameters are checked in fit
    def __init__(
        self,
        network: AbstractLayer | None = None,
        *,
        width: float = math.inf,
        scaling: AbstractScaling | str = "NTK",
        learner: AbstractLearner | str = "Posterior",
        random_state: int | np.random.RandomState | None = None,
        memory: str | None = None,
    ):
        self.network = network
        self.width = width
        self.scaling = scaling
        self.learner = learner
        self.random_state = random_state
        self.memory = memory

    def fit(self, X, y) -> "WideRegressor":
        """Trains on rows X (n, d) with targets y (n,) or (n, k). Errors as `WideClassifier.fit`."""
        member, seed = _member(self), _seed(self.random_state)
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64)
        self._mean, spread = targets.mean(axis=0), targets.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1.0)
        coded = ((targets - self._mean) / self._scale).reshape(len(X), -1)
        self.run_ = _trained(self, member, _data(X, coded, ()), seed)
        self.noise_ = getattr(self.run_.state, "noise", 0.0) * self._scale**2
        return self

    def predict(self, X, return_std: bool = False, return_cov: bool = False) -> Any:
        """Values at rows X (m, d), shaped (m,) or (m, k) as the targets were.

        With `return_std` a pair, the second their standard deviations, of the same shape; with
        `return_cov` a pair, the second their covariances, (m, m) or (m, m, k).

        Raises RuntimeError for both at once, as scikit-learn's Gaussian process does, and
        ValueError where the member knows no covariance.
        """
        if return_std and return_cov:
            raise RuntimeError("return_std and return_cov are both asked for: ask for one.")
        check_is_fitted(self)
        X = _rows(self, X)
        parts = [X] if return_cov else _parts(X)
        found = [self.run_.predict(part, covariance=return_std or return_cov) for part in parts]
        value = np.concatenate([part.value for part in found])
        value = value.reshape(-1, *self._scale.shape) * self._scale + self._mean
        if return_std:
            deviation = np.concatenate([self._known(part).std for part in found])
            if deviation.ndim == 2:  # of each output its own
                return value, deviation * self._scale
            return value, np.multiply.outer(deviation, self._scale)
        if return_cov:
            known = self._known(found[0])
            if isinstance(known, OutputsPrediction):
                raise ValueError(
                    "This member knows the covariance between outputs, not between rows: use "
                    "return_std, or a network of vectors at width=inf."
                )
            return value, np.multiply.outer(known.covariance, self._scale**2)
        return value

    def _known(self, found: Prediction | OutputsPrediction) -> Any:
        if found.covariance is None:
            raise ValueError(
                f"This member knows no standard deviation, being {_origin(self.run_)}: use "
                "width=inf with learner='Posterior', or with squared error."
            )
        return found

    def __sklearn_tags__(self):
        tags = RegressorMixin.__sklearn_tags__(self)
        tags.target_tags.multi_output = True
        return tags


class WideKernel(Kernel):
    """A network's kernel for scikit-learn's own machines: Gaussian processes, `SVC`, `SVR`.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> from sklearn.gaussian_process.kernels import WhiteKernel
    >>> from sklearn.svm import SVC
    >>> X, y = load_iris(return_X_y=True)
    >>> SVC(kernel=WideKernel(which="ntk")).fit(X, y).score(X, y) > 0.95
    True
    >>> kernel = WideKernel() + WhiteKernel(0.1)
    >>> process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
    >>> process.fit(X[:, :3], X[:, 3]).score(X[:, :3], X[:, 3]) > 0.9
    True

    Called on rows X (n, d), and Y (m, d) if given, it returns their kernel (n, n) or (n, m). It
    joins scikit-learn's kernels by `+`, `*` and `**`, whose hyperparameters stay free; it has none
    of its own: `Posterior(tune=True)` chooses a network's variances.

    Args:
        network: layers, or `MonteCarlo` of them, whose errors `kernel_matrix` tells; None as for
            `WideClassifier`.
        which: "nngp", the covariance of networks at initialisation, or "ntk", the tangent kernel.

    Raises, when called, ValueError for another name, and for rows that are not finite or do not
    match; TypeError for a network that is none.
    """

    @no_type_check  # as above: checked when called
    def __init__(self, network: AbstractLayer | None = None, which: str = "nngp"):
        self.network = network
        self.which = which

    def __call__(self, X, Y=None, eval_gradient: bool = False) -> Any:
        if Y is not None and eval_gradient:
            raise ValueError("The gradient is that of k(X, X): leave Y out.")
        X = np.atleast_2d(np.asarray(X, dtype=np.float64))
        # SVC hands over the rows twice while it fits; against themselves they are half the work.
        own = Y is None or (np.shape(Y) == X.shape and np.array_equal(X, Y))
        other = None if own else np.atleast_2d(np.asarray(Y, dtype=np.float64))
        found = self._of(kernel_matrix(_network(self.network), X, other))
        return (found, np.empty((*found.shape, 0))) if eval_gradient else found

    def diag(self, X) -> Any:
        """The diagonal (n,) of the kernel of rows X (n, d), without the rest."""
        X = np.atleast_2d(np.asarray(X, dtype=np.float64))
        return self._of(kernel_diagonal(_network(self.network), X))

    def is_stationary(self) -> Any:
        """False: the kernel is not one of differences."""
        return False

    def _of(self, both) -> np.ndarray:
        if str(self.which).lower() not in ("nngp", "ntk"):
            raise ValueError(f"which is {self.which!r}: choose 'nngp' or 'ntk'.")
        return getattr(both, self.which.lower())

    def __repr__(self) -> str:
        shown = [] if self.network is None else [repr(self.network)]
        shown += [] if self.which == "nngp" else [f"which={self.which!r}"]
        return f"WideKernel({', '.join(shown)})"


class FeatureKernel(Kernel):
    """The kernel of the features that a run has learned, for scikit-learn's kernel machines.

    >>> SVC(kernel=FeatureKernel(run)).fit(x, labels)  # doctest: +SKIP

    Args:
        run: of a member whose features move: the pi-limit, or a finite width.
        normalized: whether features are brought to length one first.

    `kernel(X)` and `kernel(X, Y)` are the matrices of rows X (n, d) and Y (m, d).
    """

    @no_type_check  # as above: checked when called
    def __init__(self, run: Run | None = None, normalized: bool = False):
        self.run = run
        self.normalized = normalized

    def __call__(self, X, Y=None, eval_gradient: bool = False) -> Any:
        state = getattr(self.run, "state", None)
        if not callable(getattr(state, "feature_kernel", None)):
            raise ValueError(
                f"run is {self.run!r}, whose features are not kept: give the run of a member at "
                "finite width, or of GradientDescent(projection=...) at width inf."
            )
        found = state.feature_kernel(  # type: ignore[union-attr]
            np.asarray(X, dtype=np.float64),
            None if Y is None else np.asarray(Y, dtype=np.float64),
            normalized=self.normalized,
        )
        return (found, np.empty((*found.shape, 0))) if eval_gradient else found

    def diag(self, X) -> Any:
        """The diagonal (n,) of the kernel of rows X (n, d)."""
        parts = [np.diagonal(self(part)) for part in _parts(np.asarray(X, dtype=np.float64))]
        return np.concatenate(parts)

    def is_stationary(self) -> Any:
        """False: the kernel is not one of differences."""
        return False


def _member(estimator: WideClassifier | WideRegressor) -> Member:
    """What an estimator's hyperparameters say; refused here, in `fit`, as scikit-learn wants."""
    return Member(
        _network(estimator.network),
        _width(estimator.width),
        _setting("scaling", estimator.scaling, AbstractScaling, scaling_named, "NTK"),
        _setting("learner", estimator.learner, AbstractLearner, learner_named, "Posterior"),
    )


def _trained(estimator: WideClassifier | WideRegressor, member: Member, data: Data, seed: int):
    resources = Resources(memory=estimator.memory)
    return member.train(data, seed=seed, order=seed, logs=2, resources=resources)


def _network(network: Any) -> AbstractLayer:
    if network is None:
        return usual_network()
    if not isinstance(network, AbstractLayer):
        raise TypeError(
            f"network is {network!r}, which is no layer: give layers such as "
            "Dense() >> Relu() >> Readout(), or None."
        )
    return network


def _width(width: Any) -> float:
    number = float(width) if isinstance(width, Real) and not isinstance(width, bool) else 0.0
    if not (number >= 1 and (number == math.inf or number.is_integer())):
        raise ValueError(f"width is {width!r}: give a positive whole number, or inf.")
    return number if number == math.inf else int(number)


def _setting(name: str, value: Any, base: type, named: Callable[[str], Any], example: str) -> Any:
    if isinstance(value, str):
        return named(value)
    if isinstance(value, base):
        return value
    if isinstance(value, type) and issubclass(value, base):
        raise TypeError(f"{name} is the class {value.__name__}: write {value.__name__}().")
    raise TypeError(f"{name} is {value!r}: give one such as {example}(), or its name, {example!r}.")


def _seed(random_state: Any) -> int:
    """An int is the seed, so that an estimator and a Member of one seed agree."""
    generator = check_random_state(random_state)
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(generator.randint(np.iinfo(np.int32).max))


def _data(X, targets, classes: tuple[str, ...]) -> Data:
    none = (np.empty((0, X.shape[1])), np.empty((0, targets.shape[1])))
    task = "classification" if classes else "regression"
    return Data.of(X, targets, *none, task=task, classes=classes)


def _rows(estimator: WideClassifier | WideRegressor, X) -> np.ndarray:
    """New rows, checked against those of `fit`."""
    return np.asarray(validate_data(estimator, X, dtype=np.float64, reset=False))


def _parts(X: np.ndarray) -> list[np.ndarray]:
    return [X[i : i + ROWS] for i in range(0, len(X), ROWS)]


def _origin(run: Run) -> str:
    what = "a network" if run.width != math.inf else "a limit"
    return f"{what} at width {run.width} trained by {type(run.learner).__name__}"


__all__ = ["FeatureKernel", "WideClassifier", "WideKernel", "WideRegressor"]
