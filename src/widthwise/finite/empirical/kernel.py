"""Kernels of a finite network as drawn or trained, by the cheapest of three ways."""

import dataclasses
import warnings
from typing import ClassVar, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree, Shaped

from widthwise.finite.empirical import checks
from widthwise.finite.empirical.choice import Explanation, Question, Way, explain, held
from widthwise.finite.empirical.contraction import contracted
from widthwise.finite.empirical.rowwise import Function, Rowwise
from widthwise.finite.empirical.tiles import Tiling, assemble
from widthwise.finite.empirical.way import AbstractWay, Outputs, Programs, compiled

Which = Literal["ntk", "nngp"]


def empirical_kernel(
    function: Function,
    parameters: PyTree,
    x1: Shaped[Array | np.ndarray, "n ..."],
    x2: Shaped[Array | np.ndarray, "m ..."] | None = None,
    *,
    which: Which = "ntk",
    outputs: Outputs = "mean",
    rates: PyTree | None = None,
    block: int = 32,
    way: Way = "cheapest",
) -> Shaped[np.ndarray, "n m ..."]:
    """J(x1) J(x2)^T, or f(x1) f(x2)^T, of any function of parameters and rows.

    >>> def function(w, x):
    ...     return x @ w
    >>> empirical_kernel(function, jnp.ones((3, 2)), jnp.eye(3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    Args:
        function: (parameters, rows) -> outputs, row by row independent and pure: its programs
            are compiled once and kept.
        parameters: derivatives are taken in the floating-point leaves; others are constants.
        x1, x2: rows; without x2, x1 against itself.
        which: tangent kernel, or the product of outputs.
        outputs: "mean" over equal outputs (n, m); "each" equal output (n, m, k); "all" pairs of
            outputs (n, m, k, k).
        rates: per-parameter step sizes, a tree like `parameters`, which weigh the tangent kernel;
            None is one everywhere.
        block: rows of a tile; memory is that of 2 * block rows of the Jacobian, 2 * block * k *
            parameters numbers, or less.
        way: how (novak2022): "contraction" of Jacobians, "products" with vectors, "structured"
            derivatives, which multiply a layer's inputs and cotangents and form no Jacobian in its
            weights; "cheapest" is what `explain_kernel` chooses.

    Raises ValueError for rows, parameters or a function that have no such kernel.
    """
    checks.check_choice("which", which, Which)
    checks.check_choice("way", way, Way)
    if which == "nngp" and (way != "cheapest" or rates is not None):
        raise ValueError("way and rates are of the tangent kernel: leave them out with 'nngp'.")
    question, arrays = _ask(function, parameters, x1, x2, rates, outputs, block)
    if which == "nngp":
        chosen, keep = _Values(question.function, outputs), True
    else:
        name = _cheapest(question) if way == "cheapest" else way
        chosen, keep = question.way(name), held(question, name).keep
    return _run(question, arrays, compiled(chosen), keep)


def explain_kernel(
    function: Function,
    parameters: PyTree,
    x1: Shaped[Array | np.ndarray, "n ..."],
    x2: Shaped[Array | np.ndarray, "m ..."] | None = None,
    *,
    outputs: Outputs = "mean",
    block: int = 32,
) -> Explanation:
    """What each way to compute the tangent kernel would cost, and which is chosen.

    >>> print(explain_kernel(lambda w, x: x @ w, jnp.ones((64, 8)), jnp.ones((30, 64)),
    ...                      outputs="all"))
    way                GFLOP          MB
    ...
    'structured' is chosen: it takes the fewest floating-point operations.

    Arguments as for `empirical_kernel`, whose programs are counted and not run. Operations of a
    `while` loop are counted for one turn.
    """
    return explain(_ask(function, parameters, x1, x2, None, outputs, block)[0])


class _Arrays(NamedTuple):
    """What a question is asked of."""

    weights: list
    rest: list
    rates: list
    x1: Array
    x2: Array | None


def _run(question: Question, arrays: _Arrays, programs: Programs, keep: bool) -> np.ndarray:
    weights, rest, rates, x1, x2 = arrays
    inputs = {"x1": x1} if x2 is None else {"x1": x1, "x2": x2}
    for name, weight, rate in zip(question.function.names(), weights, rates, strict=True):
        inputs |= {f"The parameter {name}": weight, f"The rate of {name}": rate}

    def features(x):
        return programs.features(weights, rest, x)

    def tile(left, right):
        found = np.asarray(programs.tile(weights, rest, rates, left, right))
        checks.check_finite(found, inputs)
        return found

    return assemble(question.tiling, x1, x2, keep, features, tile)


def _ask(function, parameters, x1, x2, rates, outputs, block) -> tuple[Question, _Arrays]:
    """The question in shapes, and its arrays; all that can be refused is."""
    checks.check_choice("outputs", outputs, Outputs)
    block = checks.checked_block(block)
    x1 = checks.checked_rows("x1", x1)
    if x2 is not None:
        x2 = checks.checked_rows("x2", x2)
        checks.check_alike(x1, x2)
    rowwise, weights, rest = Rowwise.sort(function, parameters)
    rates = rowwise.sort_rates(rates)
    checks.check_weights(rowwise, weights, rates)
    question = Question(
        rowwise,
        tuple(map(_shape_of, weights)),
        tuple(map(_shape_of, rest)),
        jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype),
        outputs,
        checks.n_outputs_of(rowwise, weights, rest, x1),
        frozenset(i for i, rate in enumerate(rates) if rate.size != 1),
        Tiling.of(len(x1), None if x2 is None else len(x2), block),
    )
    return question, _Arrays(weights, rest, rates, x1, x2)


def _shape_of(x) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _cheapest(question: Question) -> Way:
    try:
        return explain(question).chosen
    except ImportError as error:
        warnings.warn(f"This JAX shows no programs ({error}): Jacobians are contracted.",
                      stacklevel=3)  # fmt: skip
        return "contraction"


@dataclasses.dataclass(frozen=True)
class _Values(AbstractWay):
    """The product of outputs."""

    source: ClassVar[str] = "novak2022, section 2"

    def features(self, weights, rest, x):
        return self.function(weights, rest, x)[:, :, None]

    def tile(self, weights, rest, rates, left, right):
        return contracted(left, right, self.outputs)
