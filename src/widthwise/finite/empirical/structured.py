"""The structured way: weights by inputs and cotangents, where a rule knows how they are read."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from widthwise.finite.empirical.shares import Factors, Jacobians, cheaper_as_factors
from widthwise.finite.empirical.sites import Site, find_sites
from widthwise.finite.empirical.trace import Program
from widthwise.finite.empirical.way import AbstractWay


@dataclasses.dataclass(frozen=True)
class Structured(AbstractWay):
    """Never forms the Jacobian in a weight that one product, convolution or addition reads, if its
    factors cost less; every other weight's alone is formed.

    Args:
        rows, pairs: how many there will be, for which the cheaper form is chosen.
        uneven: weights whose entries have several step sizes, which factors cannot hold.
    """

    source: ClassVar[str] = "novak2022, section 3"
    rows: int
    pairs: int
    uneven: frozenset[int]

    def features(self, weights, rest, x):
        program = Program.trace(self.function.one, weights, rest, x[0])
        sites, loose = find_sites(program, len(weights))
        loose = {*loose, *(sites.keys() & self.uneven)}
        sites = {w: site for w, site in sites.items() if w not in loose}
        n_outputs = program.avals[program.result].shape[0]
        groups = self._groups(sites, n_outputs)
        taps = {s.tap: _zeros(program.avals[s.tap]) for s in sites.values()}

        def one(row):
            leaves = dict(enumerate(jax.tree.leaves((weights, rest, row))))

            def outputs(taps, moved):
                values = program.run(leaves | moved, taps)
                return values[program.result], {w: s.inputs(values) for w, s in sites.items()}

            moved = {w: weights[w] for w in sorted(loose)}
            found, pull, inputs = jax.vjp(outputs, taps, moved, has_aux=True)
            pulled = jax.vmap(pull)(jnp.eye(n_outputs, dtype=found.dtype))
            return self._shares(groups, sites, inputs, *pulled)

        return jax.vmap(one)(x)

    def _groups(self, sites: dict[int, Site], k: int) -> list[tuple[int, ...]]:
        """Weights that are held as factors, together where they share cotangents."""
        groups: dict[tuple, tuple[int, ...]] = {}

        def largest_first(weight):
            return -sites[weight].rule.near

        for weight in sorted(sites, key=largest_first):
            rule, tap = sites[weight].rule, sites[weight].tap
            shared, positions, far = rule.layout.sizes
            kept = k * k if self.outputs == "all" else k
            if (tap, rule.layout) in groups:  # the cotangents are held and multiplied anyway
                joins = positions**2 * rule.near < kept * rule.near * far
            else:
                work = (self.outputs, k, self.rows, self.pairs)
                joins = cheaper_as_factors(rule.layout, rule.near, *work)
            if joins:
                groups[tap, rule.layout] = (*groups.get((tap, rule.layout), ()), weight)
        return list(groups.values())

    def _shares(self, groups, sites, inputs, cotangents, jacobians):
        """What is held of one row."""
        shares = []
        for group in groups:
            site = sites[group[0]]
            arranged = site.rule.layout.arrange(cotangents[site.tap])
            shares.append(Factors(tuple(inputs[w] for w in group), arranged, group))
        for weight in sorted(sites.keys() - {w for group in groups for w in group}):
            site = sites[weight]
            arranged = site.rule.layout.arrange(cotangents[site.tap])
            formed = jnp.einsum("spi,kspo->ksio", inputs[weight], arranged)
            shares.append(Jacobians(formed.reshape(len(formed), -1), weight))
        loose = jacobians.items()
        return shares + [Jacobians(j.reshape(len(j), -1), weight) for weight, j in loose]

    def tile(self, weights, rest, rates, left, right):
        return sum(
            own.meet(other, weights, rates, self.outputs)
            for own, other in zip(left, right, strict=True)
        )


def _zeros(aval):
    return jnp.zeros(aval.shape, aval.dtype)
