"""The one place where JAX's default precision is set, for a scope."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Arrays made inside are float64, whatever the global switch says; it is left as it was.

    >>> with float64():
    ...     jax.numpy.ones(2).dtype
    dtype('float64')
    """
    with jax.enable_x64(True):
        yield
