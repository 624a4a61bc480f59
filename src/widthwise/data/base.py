"""What every reader ends in: arrays of rows, their coding, and sentences on what was done."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

ARRAYS = ("x_train", "y_train", "x_test", "y_test", "target_mean", "target_scale")
TASKS = ("classification", "regression")


class DataError(ValueError):
    """A data set that cannot be used; one sentence says what came, what was wanted, what to do.

    >>> raise DataError("The file has no rows: give at least two.")
    Traceback (most recent call last):
    widthwise.data.base.DataError: The file has no rows: give at least two.
    """


@dataclasses.dataclass(frozen=True)
class NoEncoder:
    """Stands where the coding of new rows is not known; its `transform` says so.

    >>> NoEncoder().transform("new.csv")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    widthwise.data.base.DataError: This data set was made from ready arrays ...
    """

    def transform(self, source: Any) -> Float[np.ndarray, "m d"]:
        raise DataError(
            "This data set was made from ready arrays and knows no coding of new rows: give "
            "the model coded rows itself, or load the data with widthwise.data.load."
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data:
    """Training and test rows, ready for a network. Immutable: the arrays cannot be written to.

    >>> data = Data.of([[0.0], [1.0]], [[0.5], [2.0]], [[2.0]], [[3.0]], task="regression")
    >>> data
    Data('arrays': 2 training and 1 test rows, 1 feature, 1 output)

    Args:
        x_train, x_test: features, (n, d) and (m, d); scaled so that |x|^2 / d is about 1.
        y_train, y_test: targets, (n, k) and (m, k): one-hot classes, or numbers standardised with
            the mean and standard deviation of the training rows.
        task: "classification" or "regression".
        classes: names of the k classes; () for regression.
        name: of the data set, as reports print it.
        notes: sentences on what was done to the rows.
        encoder: `encoder.transform(rows)` codes new rows of the same format as (m, d).
        target_mean, target_scale: `y * target_scale + target_mean` has the target's own units.
    """

    x_train: Float[np.ndarray, "n d"]
    y_train: Float[np.ndarray, "n k"]
    x_test: Float[np.ndarray, "m d"]
    y_test: Float[np.ndarray, "m k"]
    task: str
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...]
    encoder: Any
    target_mean: Float[np.ndarray, " k"]
    target_scale: Float[np.ndarray, " k"]

    def __post_init__(self):
        _lock(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _lock(self)  # a pickle does not keep that an array is read-only

    def __repr__(self) -> str:
        features, n, m = self.x_train.shape[1], len(self.x_train), len(self.x_test)
        word = "class" if self.task == "classification" else "output"
        plural = ("es" if word == "class" else "s") if self.n_outputs > 1 else ""
        return (
            f"Data({self.name!r}: {n:,} training and {m:,} test rows, {features:,} "
            f"feature{'s' * (features > 1)}, {self.n_outputs} {word}{plural})"
        )

    @classmethod
    def of(
        cls,
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        *,
        task: str,
        classes: Sequence[str] = (),
        name: str = "arrays",
        notes: Sequence[str] = (),
    ) -> "Data":
        """A data set of ready arrays, copied and used as they are.

        >>> Data.of([[0.0], [1.0]], [[1, 0], [0, 1]], [], [], task="classification").classes
        ('0', '1')

        Args:
            x_train, y_train, x_test, y_test: (n, d), (n, k), (m, d), (m, k), finite; at least one
                training row, while the test rows may be empty. Classes are coded one-hot.
            task: "classification" or "regression".
            classes: k names; their numbers unless given.
            name, notes: see `Data`.

        Raises DataError for any other arrays. Use `from_arrays` to split and code arrays.
        """
        check_task(task)
        x, y = _matrix("x_train", x_train), _matrix("y_train", y_train)
        x_new = _matrix("x_test", x_test, columns=x.shape[1])
        y_new = _matrix("y_test", y_test, columns=y.shape[1])
        if len(x) == 0 or x.shape[1] == 0 or y.shape[1] == 0:
            raise DataError(
                f"x_train has shape {x.shape} and y_train {y.shape}: give at least one row, one "
                "feature and one output."
            )
        for rows, targets, part in ((x, y, "train"), (x_new, y_new, "test")):
            if len(rows) != len(targets):
                raise DataError(
                    f"x_{part} has {len(rows)} rows and y_{part} {len(targets)}: give one row of "
                    "targets for each row of features."
                )
        names = _class_names(task, classes, y, y_new)
        k = y.shape[1]
        mean, scale, encoder = np.zeros(k), np.ones(k), NoEncoder()
        return cls(x, y, x_new, y_new, task, names, name, tuple(notes), encoder, mean, scale)

    @property
    def n_outputs(self) -> int:
        """The number k of classes, or of target columns."""
        return self.y_train.shape[1]

    @property
    def labels_train(self) -> Int[np.ndarray, " n"]:
        """The class of every training row as a number from 0; DataError for a regression."""
        if self.task != "classification":
            raise DataError("This data set has numbers for targets, no labels: use y_train.")
        return np.argmax(self.y_train, axis=1)

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the rows, the task and the classes.

        >>> data = Data.of([[0.0], [1.0]], [[0.5], [2.0]], [], [], task="regression")
        >>> len(data.fingerprint())
        64
        """
        digest = hashlib.sha256(repr((self.task, self.classes)).encode())
        for name in ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(array.data if array.size else b"")
        return digest.hexdigest()


def check_task(task: str | None) -> None:
    """Refuses what is neither a task nor None."""
    if task is not None and task not in TASKS:
        raise DataError(f"task is {task!r}: choose 'classification' or 'regression'.")


def _lock(data: Data) -> None:
    for name in ARRAYS:
        view = getattr(data, name).view()
        view.flags.writeable = False
        object.__setattr__(data, name, view)


def _matrix(name: str, values: Any, columns: int | None = None) -> np.ndarray:
    """A copy as float64 rows and columns; an empty list of rows takes the given `columns`."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{name} is not a table of numbers: give an array (rows, columns)."
        ) from None
    if array.size == 0 and array.ndim == 1 and columns is not None:
        array = array.reshape(0, columns)
    if array.ndim != 2:
        raise DataError(f"{name} has shape {array.shape}: give rows and columns, (n, d).")
    if columns is not None and array.shape[1] != columns:
        raise DataError(
            f"{name} has {array.shape[1]} columns and the training rows {columns}: give the same."
        )
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise DataError(
            f"{name} has {array[row, column]} in row {row}, column {column}: fill or drop it."
        )
    return array


def _class_names(task: str, classes: Sequence[str], *targets: np.ndarray) -> tuple[str, ...]:
    k = targets[0].shape[1]
    if task == "regression":
        if classes:
            raise DataError("classes is given for a regression: leave it out.")
        return ()
    for y in targets:
        if not (np.isin(y, (0.0, 1.0)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError("Classes are not one-hot: give one 1 a row and 0 elsewhere.")
    if classes and len(classes) != k:
        raise DataError(
            f"{len(classes)} class names came for {k} columns of targets: give one for each."
        )
    return tuple(map(str, classes)) or tuple(map(str, range(k)))
