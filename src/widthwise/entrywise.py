"""What an entrywise optimiser makes of gradients, at any width and among a limit's particles."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from widthwise.learner import Adam, Entrywise

LATE = 2**30  # steps, by which every power b^steps is below the smallest float


def entrywise(learner: Entrywise) -> optax.GradientTransformation:
    """What becomes of gradients, entry by entry, before step sizes and decay."""
    if isinstance(learner, Adam):
        adam = optax.scale_by_adam(learner.b1, learner.b2, learner.eps)
        if learner.bias_correction:
            return adam

        def late(params):
            """Correction divides by 1 - b^steps, which is 1 after very many."""
            return cast(Any, adam.init(params))._replace(count=jnp.int32(LATE))

        return optax.GradientTransformation(late, adam.update)
    soft = optax.stateless(
        lambda updates, _: jax.tree.map(lambda m: m / (jnp.abs(m) + learner.eps), updates)
    )
    return optax.chain(optax.ema(learner.momentum, debias=False), soft)
