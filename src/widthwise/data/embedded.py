"""The data sets that ship with scikit-learn; no network is used.

The module is the registry: every public function defined here is a data set of that name, and the
first line of its docstring is its description.
"""

from typing import Any

import numpy as np
import pandas as pd

from widthwise.data.raw import Table


def digits() -> Table:
    """Handwritten digits of 8 x 8 pixels, 1,797 rows in 10 classes."""
    return _table("digits", "classification", pixels=True, test=797)


def iris() -> Table:
    """Measurements of iris flowers, 150 rows of 4 features in 3 classes."""
    return _table("iris", "classification")


def wine() -> Table:
    """Chemical analyses of wines, 178 rows of 13 features in 3 classes."""
    return _table("wine", "classification")


def breast_cancer() -> Table:
    """Cell nuclei of breast tumours, 569 rows of 30 features in 2 classes."""
    return _table("breast_cancer", "classification")


def diabetes() -> Table:
    """Progression of diabetes after a year, 442 rows of 10 features; regression."""
    return _table("diabetes", "regression")


def linnerud() -> Table:
    """Three body measures from three exercises, 20 rows; regression with 3 outputs."""
    return _table("linnerud", "regression")


def _table(name: str, task: str, pixels: bool = False, test: int | None = None) -> Table:
    from sklearn import datasets

    found: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    features, target = found.data, pd.DataFrame(found.target)
    if task == "classification" and name != "digits":  # whose target names are its numbers
        names = np.asarray(found.target_names, dtype=object)
        target = pd.DataFrame({"target": names[target["target"].to_numpy()]})
    frame = pd.concat([features, target], axis=1)
    columns = tuple(map(str, target.columns))
    return Table(name, frame, columns, task, pixels=pixels, test=test)
