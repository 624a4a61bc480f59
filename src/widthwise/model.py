"""A trained member with the coding of its table: what `widthwise fit` saves."""

import dataclasses
import os

import numpy as np

from widthwise import store
from widthwise.data import Data
from widthwise.run import Run


@dataclasses.dataclass(frozen=True)
class Model:
    """A run, and how its table's columns and targets were coded.

    >>> Model.of(run, data).save("model.widthwise")  # doctest: +SKIP
    >>> Model.load("model.widthwise").predict("new.csv")  # doctest: +SKIP
    {'prediction': [410.9, 343.2], 'std': [2.4, 2.4]}
    """

    run: Run
    data: Data  # without rows

    @classmethod
    def of(cls, run: Run, data: Data) -> "Model":
        """Keeps the coding of a data set and none of its rows."""
        empty = {
            name: getattr(data, name)[:0] for name in ("x_train", "y_train", "x_test", "y_test")
        }
        return cls(run, dataclasses.replace(data, **empty))

    def predict(self, rows: str | os.PathLike) -> dict[str, list]:
        """Columns of predictions for a file of new rows: the class and every class's probability,
        or every value and its standard deviation where the member has one."""
        x = self.data.encoder.transform(rows)
        if self.run.task == "classification":
            chances = self.run.predict_proba(x)
            best = [self.data.classes[i] for i in np.argmax(chances, axis=1)]
            return {"prediction": best} | {
                f"p({name})": chances[:, i].tolist() for i, name in enumerate(self.data.classes)
            }
        found = self.run.predict(x, covariance=True)
        value = found.value * self.data.target_scale + self.data.target_mean
        many = value.shape[1] > 1
        table = {}
        for i in range(value.shape[1]):
            suffix = f"_{i}" if many else ""
            table[f"prediction{suffix}"] = value[:, i].tolist()
            if found.std is not None:
                own = found.std if found.std.ndim == 1 else found.std[:, i]
                table[f"std{suffix}"] = (own * self.data.target_scale[i]).tolist()
        return table

    def save(self, path: str | os.PathLike) -> None:
        """Writes one file, whole or not at all."""
        store.save(path, self, "model")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Model":
        """Reads a file written by `save`. As with any pickle, load only files you trust.

        Raises ValueError, in one sentence, for any other file, and for one that is damaged.
        """
        return store.load(path, "model", "fit it again")
