"""The tangent kernel as the Jacobians' product: J(x1) J(x2)^T, tensor by tensor."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.finite.empirical.case import Case, Method, scaled


def contraction(case: Case) -> Method:
    """Each row's Jacobian in all parameters, by one backward pass an output; then their product."""

    @jax.jit
    def features(leaves, rates, x):
        def one(row):
            found = jax.jacrev(lambda leaves: case.one(leaves, row))(leaves)
            return [flat(scaled(rates, i, part)) for i, part in enumerate(found)]

        return jax.vmap(one)(x)

    @jax.jit
    def tile(leaves, rates, left, right):
        pairs = zip(left, right, strict=True)
        return rows_first(sum(jacobian_product(a, b, case.outputs) for a, b in pairs), case)

    return Method("contraction", features, tile)


def flat(jacobian: Float[Array, "k ..."]) -> Float[Array, "k p"]:
    """The Jacobian in one parameter, laid flat."""
    return jacobian.reshape(len(jacobian), -1)


def jacobian_product(
    left: Float[Array, "n k p"], right: Float[Array, "m k p"], outputs: str
) -> Float[Array, "n ..."]:
    """One parameter's share: (n, k, m, k), (n, m, k) or (n, m) for "all", "each", "mean"."""
    if outputs == "all":
        return jnp.einsum("nkp,mlp->nkml", left, right)
    if outputs == "each":
        return jnp.einsum("nkp,mkp->nmk", left, right)
    return jnp.einsum("nkp,mkp->nm", left, right) / left.shape[1]


def rows_first(kernel: Float[Array, "n ..."], case: Case) -> Float[Array, "n m ..."]:
    """(n, k, m, k) as (n, m, k, k); sums are taken in the order in which products come out."""
    return kernel.transpose(0, 2, 1, 3) if case.outputs == "all" else kernel
