"""What the tests of finite networks share."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiles_fast():
    """These programs run once and take milliseconds: all the time goes into compiling them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
