"""A function of one row as a flat list of steps, which can be run with additions on the way."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax

# Calls that mean what their body means. A custom derivative is not among them: its rule counts.
CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}


class Step(NamedTuple):
    """One equation; the values it reads and writes are numbered throughout the program."""

    equation: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params


class Program(NamedTuple):
    """Steps, calls written out.

    >>> program = Program.trace(lambda w, x: jax.jit(jnp.sin)(w) * x, 1.0, 2.0)
    >>> [step.name for step in program.steps]
    ['sin', 'mul']
    >>> float(program.run({0: 0.0, 1: 2.0})[program.result])
    0.0
    """

    steps: tuple[Step, ...]
    constants: dict[int, Any]
    avals: tuple[Any, ...]  # of every value, by its number
    result: int
    jaxpr: Any  # as traced

    @staticmethod
    def trace(function, *arguments) -> "Program":
        """Of the function's arguments the leaves are values 0, 1, ..."""
        closed = jax.make_jaxpr(function)(*arguments)
        writer = _Writer([], {}, [])
        inputs = [writer.number(v.aval) for v in closed.jaxpr.invars]
        (result,) = writer.write(closed.jaxpr, closed.consts, inputs)
        steps, avals = tuple(writer.steps), tuple(writer.avals)
        return Program(steps, writer.constants, avals, result, closed.jaxpr)

    def run(self, values: Mapping[int, Any], added: Mapping[int, Any] | None = None):
        """All values, by number, from those of the arguments; `added` is added to some."""
        added, found = added or {}, {**self.constants, **values}
        for step in self.steps:
            for number, value in zip(step.writes, _evaluate(step, self.jaxpr, found), strict=True):
                found[number] = value + added[number] if number in added else value
        return found


class _Writer(NamedTuple):
    """Gathers steps while the equations of nested calls are written out."""

    steps: list[Step]
    constants: dict[int, Any]
    avals: list[Any]

    def number(self, aval) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def constant(self, aval, value) -> int:
        number = self.number(aval)
        self.constants[number] = value
        return number

    def write(self, jaxpr, consts: Iterable[Any], inputs: list[int]) -> list[int]:
        from jax.extend.core import Literal  # see count.py

        pairs = zip(jaxpr.constvars, consts, strict=True)
        known = {v: self.constant(v.aval, value) for v, value in pairs}
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def number_of(atom) -> int:
            literal = isinstance(atom, Literal)
            return self.constant(atom.aval, atom.val) if literal else known[atom]

        for equation in jaxpr.eqns:
            reads = tuple(map(number_of, equation.invars))
            if equation.primitive.name in CALLS:
                writes = self.write(*_body(equation), list(reads))
            else:
                writes = [self.number(v.aval) for v in equation.outvars]
                self.steps.append(Step(equation, reads, tuple(writes)))
            known |= dict(zip(equation.outvars, writes, strict=True))
        return [number_of(atom) for atom in jaxpr.outvars]


def _body(equation):
    """The called program and its constants, which one call in two keeps outside."""
    from jax.extend.core import ClosedJaxpr

    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())


def _evaluate(step: Step, jaxpr, found: Mapping[int, Any]) -> list[Any]:
    """One equation, as a program of its own: how a primitive is called changes with JAX."""
    from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

    pairs = zip(step.equation.invars, step.reads, strict=True)
    values = {v: found[number] for v, number in pairs if not isinstance(v, Literal)}
    outvars, equations = list(step.equation.outvars), [step.equation]
    alone = jaxpr.replace(constvars=[], invars=list(values), outvars=outvars, eqns=equations)
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*values.values())
