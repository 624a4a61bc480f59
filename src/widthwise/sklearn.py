"""Networks of any width as scikit-learn estimators, and their kernels for its machines."""

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.gaussian_process.kernels import Kernel
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from widthwise.data import Data
from widthwise.family import Member
from widthwise.kernels import kernel_matrix
from widthwise.learner import AbstractLearner
from widthwise.lookup import learner_named, scaling_named
from widthwise.network import AbstractLayer, Dense, Readout, Relu
from widthwise.scaling import NTK, AbstractScaling


def _default_network() -> AbstractLayer:
    return Dense() >> Relu() >> Dense() >> Relu() >> Readout()


class _Settings:
    """What both estimators do with their hyperparameters."""

    network: AbstractLayer | None
    width: float
    scaling: Any
    learner: Any
    random_state: int | None

    def _member(self) -> Member:
        network = _default_network() if self.network is None else self.network
        scaling = scaling_named(self.scaling) if isinstance(self.scaling, str) else self.scaling
        learner = learner_named(self.learner) if isinstance(self.learner, str) else self.learner
        return Member(network, float(self.width), scaling, learner)

    def _train(self, data: Data):
        seed = 0 if self.random_state is None else int(self.random_state)
        return self._member().train(data, seed=seed, order=seed, logs=2)


class WideClassifier(_Settings, ClassifierMixin, BaseEstimator):
    """A classifier: a network at one width, infinity among them.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> WideClassifier().fit(X, y).score(X, y) > 0.9
    True

    Args:
        network: layers that end in `Readout()`; None is two hidden ReLU layers.
        width: positive whole number, or `inf`.
        scaling: a scaling, or its name.
        learner: a learner, or its name.
        random_state: seeds initial weights and batches.

    Features are used as they are: put a `StandardScaler` in front of it.
    """

    def __init__(
        self,
        network: AbstractLayer | None = None,
        *,
        width: float = math.inf,
        scaling: AbstractScaling | str = "NTK",
        learner: AbstractLearner | str = "Posterior",
        random_state: int | None = 0,
    ):
        self.network = network
        self.width = width
        self.scaling = scaling
        self.learner = learner
        self.random_state = random_state

    def fit(self, X, y):
        """Trains on rows X (n, d) with labels y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "Classifier can't train when only one class is present: give at least 2 classes."
            )
        targets = np.eye(len(self.classes_))[labels]
        self.run_ = self._train(_as_data(X, targets, tuple(map(str, self.classes_))))
        return self

    def predict_proba(self, X):
        """Class probabilities (m, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.run_.predict_proba(X)

    def predict(self, X):
        """Labels (m,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.classes_[np.argmax(self.run_.predict(X).value, axis=1)]


class WideRegressor(_Settings, RegressorMixin, BaseEstimator):
    """A regressor: a network at one width, infinity among them. Arguments as `WideClassifier`.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> mean, std = WideRegressor().fit(10 * X, y).predict(10 * X[:3], return_std=True)
    >>> std.shape
    (3,)

    Targets are standardised inside and predictions are in their units.
    """

    def __init__(
        self,
        network: AbstractLayer | None = None,
        *,
        width: float = math.inf,
        scaling: AbstractScaling | str = "NTK",
        learner: AbstractLearner | str = "Posterior",
        random_state: int | None = 0,
    ):
        self.network = network
        self.width = width
        self.scaling = scaling
        self.learner = learner
        self.random_state = random_state

    def fit(self, X, y):
        """Trains on rows X (n, d) with targets y (n,) or (n, k)."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64)
        self._flat = targets.ndim == 1
        targets = targets.reshape(len(X), -1)
        self._mean = targets.mean(axis=0)
        scale = targets.std(axis=0)
        self._scale = np.where(scale > 0, scale, 1.0)
        self.run_ = self._train(_as_data(X, (targets - self._mean) / self._scale, ()))
        return self

    def predict(self, X, return_std: bool = False):
        """Values (m,) or (m, k), and with `return_std` their standard deviations.

        Raises ValueError for `return_std` where the member has no covariance.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        found = self.run_.predict(X, covariance=return_std)
        value = found.value * self._scale + self._mean
        value = value[:, 0] if self._flat else value
        if not return_std:
            return value
        if found.std is None:
            raise ValueError(
                f"A member given {found.given} has no standard deviation: use width=inf with "
                "learner='Posterior' or squared error."
            )
        std = found.std[:, None] * self._scale
        return value, std[:, 0] if self._flat else std

    def __sklearn_tags__(self):
        tags = BaseEstimator.__sklearn_tags__(self)
        tags = _regressor_tags(tags)
        tags.target_tags.multi_output = True
        return tags


def _regressor_tags(tags):
    from sklearn.utils import RegressorTags

    tags.estimator_type = "regressor"
    tags.regressor_tags = RegressorTags()
    tags.target_tags.required = True
    return tags


def _as_data(X, targets, classes: tuple[str, ...]) -> Data:
    none = (np.empty((0, X.shape[1])), np.empty((0, targets.shape[1])))
    task = "classification" if classes else "regression"
    return Data.of(X, targets, *none, task=task, classes=classes)


class WideKernel(Kernel):
    """A network's kernel for `GaussianProcessRegressor`, and, called on rows, for `SVC`.

    >>> from sklearn.svm import SVC
    >>> SVC(kernel=WideKernel(which="ntk"))
    SVC(kernel=WideKernel(network=None, which='ntk'))

    Args:
        network: layers; None is two hidden ReLU layers.
        which: "nngp" or "ntk".

    It has no free hyperparameters: choose variances with `Posterior(tune=True)`.
    """

    def __init__(self, network: AbstractLayer | None = None, which: str = "nngp"):
        self.network = network
        self.which = which

    def __call__(self, X, Y=None, eval_gradient: bool = False):
        if self.which not in ("nngp", "ntk"):
            raise ValueError(f"which is {self.which!r}: choose 'nngp' or 'ntk'.")
        network = _default_network() if self.network is None else self.network
        # SVC hands over the same array twice while fitting: the symmetric path is half the work
        other = None if Y is None or Y is X else np.asarray(Y, dtype=float)
        found = getattr(kernel_matrix(network, np.asarray(X, float), other, scaling=NTK()), self.which)
        return (found, np.empty((*found.shape, 0))) if eval_gradient else found

    def diag(self, X):
        return np.array([self(row[None])[0, 0] for row in np.asarray(X, dtype=float)])

    def is_stationary(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"WideKernel(network={self.network!r}, which={self.which!r})"


__all__ = ["WideClassifier", "WideKernel", "WideRegressor"]
