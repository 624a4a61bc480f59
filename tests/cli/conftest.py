"""The command line is called in this process: words in; exit code and both streams out."""

from typing import NamedTuple

import numpy as np
import pytest

from widthwise.cli import main


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs `widthwise` in an empty folder with these words."""
    monkeypatch.chdir(tmp_path)

    def run(*words) -> Said:
        capsys.readouterr()
        code = 0
        try:
            main(list(map(str, words)))
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def houses(tmp_path):
    """A table of 60 houses with a number and a word to predict: the path of a CSV file."""
    rng = np.random.default_rng(0)
    lines = ["area,rooms,town,price"]
    for area, rooms, noise in zip(
        rng.normal(100, 20, 60), rng.integers(1, 7, 60), rng.normal(0, 5, 60), strict=True
    ):
        town = "Bonn" if area + 10 * rooms > 135 else "Ulm"
        lines.append(f"{area:.2f},{rooms},{town},{3 * area + 10 * rooms + noise:.2f}")
    path = tmp_path / "houses.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
