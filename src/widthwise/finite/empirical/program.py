"""A function as a list of equations with its nested calls laid open, to be run with some of its
variables moved and others kept.

Only names that JAX documents are used, and only a few of them. A name that a later release
changes hides structure; it does not change values: what is not recognised is run as it stands.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jaxtyping import Array

# Calls that mean what their bodies mean. Those with a derivative of their own stay closed.
TRANSPARENT = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


class Step(NamedTuple):
    """One equation: variables are numbers; `run` takes the values of `fed`, gives `outputs`."""

    name: str
    settings: Mapping[str, Any]
    inputs: tuple[int, ...]
    fed: tuple[int, ...]  # the inputs that are no literals, each once
    outputs: tuple[int, ...]
    run: Callable[..., Sequence[Array]]


class Program(NamedTuple):
    """Equations in order; `kinds` holds the shape and dtype of every variable."""

    arguments: tuple[int, ...]
    constants: Mapping[int, Any]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    kinds: Mapping[int, jax.ShapeDtypeStruct]

    def run(
        self, arguments: Sequence[Any], moved: Mapping[int, Any], kept: Iterable[int] = ()
    ) -> tuple[list[Any], dict[int, Any]]:
        """(results, values of `kept`) where each variable of `moved` has that added to it."""
        values = {**self.constants, **dict(zip(self.arguments, arguments, strict=True))}
        for step in self.steps:
            found = step.run(*(values[number] for number in step.fed))
            for number, value in zip(step.outputs, found, strict=True):
                values[number] = value + moved[number] if number in moved else value
        return [values[number] for number in self.results], {x: values[x] for x in kept}


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """The equations of a function on arguments of these shapes; results and arguments laid flat.

    >>> program = trace(lambda w, x: jnp.sin(x @ w), jnp.ones((3, 2)), jnp.ones(3))
    >>> [step.name for step in program.steps]
    ['dot_general', 'sin']
    >>> program.run([jnp.ones((3, 2)), jnp.zeros(3)], {})[0]
    [Array([0., 0.], dtype=float32)]
    """
    closed = jax.make_jaxpr(function)(*arguments)
    numbers, kinds, constants = itertools.count(), {}, {}
    steps: list[Step] = []

    def new(kind, value=None) -> int:
        number = next(numbers)
        kinds[number] = jax.ShapeDtypeStruct(kind.shape, kind.dtype)
        if value is not None:
            constants[number] = value
        return number

    def walk(closed: ClosedJaxpr, given: Sequence[int]) -> list[int]:
        names = dict(zip(closed.jaxpr.invars, given, strict=True))
        for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            names[variable] = new(variable.aval, value)

        def read(atom) -> int:
            return new(atom.aval, atom.val) if isinstance(atom, Literal) else names[atom]

        for equation in closed.jaxpr.eqns:
            inputs, inner = tuple(map(read, equation.invars)), _body(equation)
            if inner is not None:
                outputs = walk(inner, inputs)
            else:
                outputs = [new(variable.aval) for variable in equation.outvars]
                steps.append(_step(closed.jaxpr, equation, names, inputs, tuple(outputs)))
            names.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    given = [new(variable.aval) for variable in closed.jaxpr.invars]
    results = walk(closed, given)
    return Program(tuple(given), constants, tuple(steps), tuple(results), kinds)


def _body(equation) -> ClosedJaxpr | None:
    """What a transparent call calls; None for all other equations."""
    if equation.primitive.name not in TRANSPARENT:
        return None
    bodies = bodies_of(equation)
    if len(bodies) != 1 or len(bodies[0].jaxpr.invars) != len(equation.invars):
        return None
    return bodies[0]


def bodies_of(equation) -> list[ClosedJaxpr]:
    """The programs inside an equation: what it calls, repeats or chooses from."""
    found = []
    for value in equation.params.values():
        parts = value if isinstance(value, (tuple, list)) else (value,)
        found += [part for part in parts if isinstance(part, ClosedJaxpr)]
        found += [ClosedJaxpr(part, ()) for part in parts if _is_closed(part)]
    return found


def _is_closed(part: Any) -> bool:
    return isinstance(part, Jaxpr) and not part.constvars


def _step(jaxpr, equation, names, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Step:
    """The equation as a program of its own, which JAX runs as it runs any other."""
    atoms = dict.fromkeys(atom for atom in equation.invars if not isinstance(atom, Literal))
    alone = jaxpr.replace(
        constvars=[], invars=list(atoms), outvars=list(equation.outvars), eqns=[equation]
    )
    fed = tuple(names[atom] for atom in atoms)
    run = jaxpr_as_fun(ClosedJaxpr(alone, ()))
    return Step(equation.primitive.name, equation.params, inputs, fed, outputs, run)
