"""A training on disk: both tables and how far it is, whole or not at all."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from widthwise.tasks.words.events import Cursor
from widthwise.tasks.words.files import written
from widthwise.tasks.words.machine import State


class Kept(NamedTuple):
    """What a checkpoint holds."""

    state: State
    cursor: Cursor
    seconds: float


def keep(path: Path, name: str, kept: Kept) -> None:
    """Writes a checkpoint of the training of this name."""
    with written(path) as file:
        np.savez(
            file, name=np.array(name), inputs=kept.state.inputs, outputs=kept.state.outputs,
            cursor=np.array(kept.cursor, np.int64), seconds=np.array(kept.seconds),
        )  # fmt: skip


def found(path: Path, name: str) -> Kept | None:
    """The checkpoint, or None where there is none.

    Raises ValueError where the file is damaged or belongs to another training.
    """
    if not path.exists():
        return None
    try:
        # opened here: NumPy leaves a damaged archive open
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["name"]) != name:
                raise ValueError(
                    f"{path} belongs to another training ({file['name']}): name another file."
                )
            cursor = Cursor(*map(int, file["cursor"]))
            state = State(file["inputs"], file["outputs"])  # the archive checks its sums
            return Kept(state, cursor, float(file["seconds"]))
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ValueError(f"The checkpoint {path} is damaged ({error}): delete it.") from None
