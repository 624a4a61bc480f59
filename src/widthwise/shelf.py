"""Finished runs kept while a family trains, so that an interrupted one goes on from there."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from widthwise import __version__
from widthwise.run import Run

PROBES = np.linspace(-5.0, 5.0, 64, dtype=np.float32)  # where functions that print alike differ
_IN_MEMORY: dict[str, Run] = {}  # finished runs of families that were interrupted


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Runs on disk, or in memory, under a name that changes with whatever they depend on.

    Args:
        folder: where files are written; None keeps runs in memory until the family is whole.
        network: of the family.
        settings: everything else that a run depends on; its print is what counts.
    """

    folder: Path | None
    network: Any
    settings: tuple[Any, ...]
    found: list[str] = dataclasses.field(default_factory=list)  # names of runs that were there

    def __post_init__(self):
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property  # it runs every nonlinearity, and each run asks for it
    def _prefix(self) -> str:
        values = [f(PROBES).tobytes() for f in _functions(self.network)]
        known = repr((__version__, self.network, values, self.settings))
        return hashlib.sha256(known.encode()).hexdigest()[:12]

    def get(self, name: str) -> Run | None:
        """The run of this name, or None where it has to be trained."""
        run = self._read(f"{self._prefix}-{name}")
        # two user functions may print alike: the network itself decides
        if run is None or run.network != self.network:
            return None
        self.found.append(name)
        return run

    def _read(self, name: str) -> Run | None:
        if self.folder is None:
            return _IN_MEMORY.get(name)
        path = self.folder / f"{name}.run"
        try:
            return Run.load(path) if path.exists() else None
        except ValueError:
            return None  # cut off or of another version: train it again

    def put(self, name: str, run: Run) -> None:
        """Keeps a finished run."""
        if self.folder is None:
            _IN_MEMORY[f"{self._prefix}-{name}"] = run
        else:
            run.save(self.folder / f"{self._prefix}-{name}.run")
            (self.folder / f"{self._prefix}-{name}.part").unlink(missing_ok=True)

    def checkpoint(self, name: str) -> Path | None:
        """The file in which a training of this name keeps what it has done; None in memory."""
        return None if self.folder is None else self.folder / f"{self._prefix}-{name}.part"

    def clear(self) -> None:
        """Forgets what was kept in memory, once the family is whole."""
        for name in [name for name in _IN_MEMORY if name.startswith(self._prefix)]:
            del _IN_MEMORY[name]


def _functions(network: Any) -> Iterator[Callable[[Any], Any]]:
    """The nonlinearities of a network, as functions of arrays."""
    for inner in network.inside:
        yield from _functions(inner)
    if callable(network):
        yield lambda x: np.asarray(network(x))
