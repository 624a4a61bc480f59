"""What has no empirical kernel is refused in one sentence that says what to do."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import empirical_kernel, explain_kernel

W, X = jnp.ones((3, 2)), jnp.eye(3)
NAN = jnp.array([[1.0, jnp.nan, 1.0]])


def linear(w, x):
    return x @ w


def squared(w, x):
    return (x @ w) ** 2


BAD: Any = {
    "no rows": ((linear, W, jnp.zeros((0, 3))), {}, "x1 has the shape (0, 3): give at least one"),
    "a number": ((linear, W, jnp.array(1.0)), {}, "x1 has the shape (): give at least one row."),
    "a list": ((linear, W, [[1.0]]), {}, "x1 is of type list: give an array of rows."),
    "words": ((linear, W, np.array(["a"])), {}, "x1 holds <U1: give an array of numbers."),
    "two shapes": ((linear, W, X, jnp.ones((2, 4))), {}, "float32[3] and rows of x2 float32[4]"),
    "vector": ((lambda w, x: (x @ w)[:, 0], W, X), {}, "let it return one array"),
    "no row axis": ((lambda w, x: w, W, X), {}, "let it return one array"),
    "a tuple": ((lambda w, x: (x @ w, x), W, X), {}, "let it return one array"),
    "whole outputs": ((lambda w, x: (x @ w).astype(int), W, X), {}, "of real outputs"),
    "NaN rows": ((linear, W, NAN), {}, "x1 holds NaN"),
    "NaN second rows": ((linear, W, X, NAN), {}, "x2 holds NaN"),
    "NaN parameter": ((squared, W * jnp.nan, X), {}, "The parameter itself holds NaN"),
    "infinite": ((lambda w, x: jnp.sqrt(x @ w - 1), W, X), {}, "The kernel is not finite"),
    "complex": ((linear, W * 1j, X), {}, "complex: give its two parts apart."),
    "no parameters": ((lambda w, x: x, {"n": 3}, X), {}, "no floating-point array"),
    "rates of another form": ((linear, W, X), {"rates": [1.0]}, "give one rate for each"),
    "rates of another shape": ((linear, W, X), {"rates": jnp.ones(5)}, "one for each entry"),
    "no block": ((linear, W, X), {"block": 0}, "block is 0: give a positive whole number"),
    "half a block": ((linear, W, X), {"block": 1.5}, "block is 1.5: give a positive whole"),
    "unknown way": ((linear, W, X), {"way": "fast"}, "way is 'fast': give one of 'cheapest',"),
    "unknown outputs": ((linear, W, X), {"outputs": "some"}, "outputs is 'some': give one of"),
    "unknown kernel": ((linear, W, X), {"which": "ntkgp"}, "which is 'ntkgp': give one of"),
    "a way to outputs": ((linear, W, X), {"which": "nngp", "way": "products"}, "leave them out"),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name, unchecked):
    arguments, settings, words = BAD[name]
    with pytest.raises(ValueError) as caught:
        empirical_kernel(*arguments, **settings)
    text = str(caught.value)
    assert words in text and text.endswith(".") and "\n" not in text


@pytest.mark.parametrize("name", ["no rows", "two shapes", "vector", "complex"])
def test_explanations_are_refused_alike(name, unchecked):
    arguments, _, words = BAD[name]
    with pytest.raises(ValueError) as caught:
        explain_kernel(*arguments)
    assert words in str(caught.value)
