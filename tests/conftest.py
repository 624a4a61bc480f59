"""What all tests share. Types and shapes of every call are checked: see pyproject.toml."""

import itertools
import os

os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxtyping
import numpy as np
import pytest

# Folders whose tests compile hundreds of small programs and run each once.
ONCE = ("contract", "kernels", "network", "property")


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """There, half of the time would be LLVM's."""
    jax.config.update("jax_disable_most_optimizations", request.path.parent.name in ONCE)


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
