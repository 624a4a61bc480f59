"""Chains of Hamiltonian Monte Carlo over a network's hidden layers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.finite.posterior.whitened import Observed, Whitened
from widthwise.inference import Sampling
from widthwise.solve import float64

PARTS = 10  # in which draws are made, and told of
ACCEPTED = 0.9  # of proposals, which warm-up adapts the step size to


class Drawn(NamedTuple):
    """Draws of the hidden layers' numbers, by chain, and how many steps diverged."""

    positions: Float[np.ndarray, "c s z"]
    divergences: int


def check_installed() -> None:
    """Raises ImportError, in one sentence, without the library that samples."""
    try:
        import blackjax  # noqa: F401
    except ImportError:
        raise ImportError(
            "Networks that no exact mixture describes are sampled by BlackJAX: "
            "pip install 'widthwise[sampling]', or use width=inf."
        ) from None


def draw(
    whitened: Whitened,
    data: Observed,
    sampling: Sampling,
    seed: int,
    advance: Callable[[float], None],
) -> Drawn:
    """The no-U-turn sampler from draws of the prior, with step sizes and diagonal metrics of each
    chain's own warm-up.

    `advance` is called with the share of the steps done since the last call. Draws are stored in
    float32, and all that is computed from them in float64.

    Source: hoffman2014, the no-U-turn sampler.
    """
    check_installed()
    count, total = -(-sampling.draws // PARTS), sampling.warmup + sampling.draws
    with float64():
        first, warm, *others = jax.random.split(jax.random.key(seed), 2 + PARTS)
        start = jax.random.normal(first, (sampling.chains, whitened.size))
        keys = jax.random.split(warm, sampling.chains)
        state, tuned = _warmed(whitened, sampling.warmup, keys, start, data)
        advance(sampling.warmup / total)
        found, divergences, left = [], 0, sampling.draws
        for key in others:
            keys = jax.random.split(key, sampling.chains)
            state, positions, diverged = _advanced(whitened, count, keys, state, tuned, data)
            kept = min(count, left)
            found.append(np.asarray(positions[:, :kept], np.float32))
            divergences += int(np.sum(diverged[:, :kept]))
            left -= kept
            advance(kept / total)
            if not left:
                break
    return Drawn(np.concatenate(found, axis=1), divergences)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _warmed(whitened: Whitened, steps: int, keys, start, data: Observed):
    import blackjax

    def one(key, position):
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            functools.partial(whitened.log_density, data=data),
            target_acceptance_rate=ACCEPTED,
            adaptation_info_fn=lambda *_: None,
        )
        (state, tuned), _ = adaptation.run(key, position, steps)  # type: ignore[call-arg]
        return state, tuned

    return jax.vmap(one)(keys, start)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advanced(whitened: Whitened, count: int, keys, states, tuned: Any, data: Observed):
    import blackjax

    def one(key, state, settings):
        density = functools.partial(whitened.log_density, data=data)
        sampler = blackjax.nuts(density, **settings)

        def step(state, key):
            found: tuple[Any, Any] = sampler.step(key, state)
            state, info = found
            return state, (state.position, info.is_divergent)

        state, found = jax.lax.scan(step, state, jax.random.split(key, count))
        return state, *found

    return jax.vmap(one)(keys, states, tuned)


def prior_draws(whitened: Whitened, count: int, seed: int) -> Float[np.ndarray, "s z"]:
    """Draws of the prior, of another key than the chains' starts."""
    with float64():
        key = jax.random.fold_in(jax.random.key(seed), 1)
        found = jax.random.normal(key, (count, whitened.size), jnp.float64)
        return np.asarray(found, np.float32)
