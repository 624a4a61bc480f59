"""What a program costs, read off its equations before anything runs."""

import math
from typing import Any, NamedTuple

import jax


class Cost(NamedTuple):
    """Floating-point operations, and bytes of the largest array made on the way.

    >>> cost_of(lambda a, b: a @ b, jax.ShapeDtypeStruct((2, 3), "float32"),
    ...         jax.ShapeDtypeStruct((3, 5), "float32"))
    Cost(flops=60, bytes=40)
    """

    flops: int
    bytes: int


def cost_of(program, *arguments) -> Cost:
    """Counted without running the program; arguments may be shapes.

    Products and convolutions are counted exactly, everything else as one operation an entry; the
    body of a `while` once, since its turns are not known.
    """
    return _jaxpr_cost(jax.make_jaxpr(program)(*arguments).jaxpr)


def bytes_of_arrays(tree) -> int:
    """Of arrays, or of their shapes."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(aval) -> int:
    return math.prod(aval.shape) * aval.dtype.itemsize


def _jaxpr_cost(jaxpr) -> Cost:
    flops, largest = 0, 0
    for equation in jaxpr.eqns:
        own = _equation_cost(equation)
        flops, largest = flops + own.flops, max(largest, own.bytes)
    return Cost(flops, largest)


def _equation_cost(equation) -> Cost:
    name, params = equation.primitive.name, equation.params
    outputs = [v.aval for v in equation.outvars]
    inner = [_jaxpr_cost(jaxpr) for jaxpr in jaxprs_of(equation)]
    made = sum(_bytes(aval) for aval in outputs)
    if inner:
        turns = params["length"] if name == "scan" else 1
        each = [cost.flops for cost in inner]
        flops = turns * (max(each) if name == "cond" else sum(each))
        return Cost(flops, max(made, *(cost.bytes for cost in inner)))
    size = sum(math.prod(aval.shape) for aval in outputs)
    left: Any = equation.invars[0].aval.shape if equation.invars else ()
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return Cost(2 * size * math.prod(left[axis] for axis in contracted), made)
    if name == "conv_general_dilated":
        kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        return Cost(2 * size * math.prod(kernel) // kernel[spec[0]], made)
    return Cost(max(size, math.prod(left)) if name.startswith("reduce") else size, made)


def jaxprs_of(equation) -> list:
    """The programs inside an equation (of a jit, a scan, a cond ...)."""
    # Here, for a JAX that moves these names shall break the one call and not the import.
    from jax.extend.core import ClosedJaxpr, Jaxpr

    leaves = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
    )
    found = [leaf for leaf in leaves if isinstance(leaf, ClosedJaxpr | Jaxpr)]
    return [leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf for leaf in found]
