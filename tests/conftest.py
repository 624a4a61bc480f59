"""What all tests share. Types and shapes of every call are checked: see pyproject.toml."""

import itertools
import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import numpy as np
import pytest

# Folders whose tests, the slow ones too, compile hundreds of small programs and run each once.
ONCE = {"contract", "kernels", "network", "property"}
# Folders and modules whose tests run for long what they compile.
LONG = {
    "paper", "tasks", "test_adam", "test_adam_mean_field", "test_adam_steps", "test_extrapolated",
    "test_mean_field", "test_mean_field_fluctuations",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Where programs run once: half of the time would be LLVM's."""
    names = {request.path.parent.name, request.path.stem}
    quick = names & ONCE or not (names & LONG or "slow" in request.keywords)
    jax.config.update("jax_disable_most_optimizations", bool(quick))


MAPPED = 30_000  # pieces of memory, of the 65,530 that a process may map


@pytest.fixture(autouse=True, scope="module")
def released():
    """Compiled programs are let go before they are too many: each takes dozens of pieces of memory,
    and the compiler crashes where there are no more."""
    yield
    let_go()


@pytest.fixture(autouse=True)
def released_by_slow_ones(request):
    """Of which hundreds may stand in one module."""
    yield
    if "slow" in request.keywords:
        let_go()


def let_go():
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MAPPED:
        jax.clear_caches()


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request):
    """JAX's global precision switch, off and on; True when on."""
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture
def double():
    """JAX's global precision switch, on."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def getkey():
    """A function whose every call gives another key, the same in every run."""
    counter = itertools.count()
    return lambda: jax.random.key(next(counter))


@pytest.fixture
def unchecked():
    """As users see it: without the type checks of the tests, which would raise first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
