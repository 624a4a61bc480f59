"""Gaussian expectations by adaptive panels: slow, plain, independent of the library."""

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.network.nonlinear import AbstractQuadrature, AbstractSmooth

REACH = 9.5
NODE, WEIGHT = np.polynomial.legendre.leggauss(14)


def kinks_of(f) -> tuple[float, ...]:
    """Where f may have a kink: what it says, or 0 where it says nothing."""
    if isinstance(f, AbstractQuadrature):
        return f.kinks
    return () if isinstance(f, AbstractSmooth) else (0.0,)


def derivative(f):
    """f', entry by entry."""

    @jax.jit
    def slope(h):
        return jax.vmap(jax.grad(lambda x: f(x)))(h.ravel()).reshape(h.shape)

    return slope


def _rule(edges):
    """Nodes and normal weights of a Gauss-Legendre rule between edges (the last axis)."""
    half, middle = np.diff(edges) / 2, (edges[..., 1:] + edges[..., :-1]) / 2
    z = middle[..., None] + half[..., None] * NODE
    w = half[..., None] * WEIGHT * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return z.reshape(*edges.shape[:-1], -1), w.reshape(*edges.shape[:-1], -1)


def _values(f, h):
    return np.asarray(f(jnp.asarray(h, dtype="float64")))


def alone(f, a, kinks=()):
    """E[f(u)^2] for u ~ N(0, a)."""
    splits = [np.clip(k / np.sqrt(a), -REACH, REACH) for k in kinks]
    z, w = _rule(np.sort([*np.arange(-REACH, REACH + 0.1, 0.5), *splits]))
    return float(w @ _values(f, np.sqrt(a) * z) ** 2)


def expectation(f, a, c, b, kinks=()):
    """E[f(u) f(v)] for (u, v) ~ N(0, [[a, c], [c, b]])."""
    root, size = np.sqrt(a), np.sqrt(a * b)
    spread = np.sqrt(max((size - c) * (size + c), 0.0) / a)
    splits = [k / root for k in kinks] + [k * root / c if c else 0.0 for k in kinks]
    # E[f(v) | u] bends within `spread` of a kink: panels grow from there in powers of four
    graded = [p + s * 4.0**-i for p in splits for s in (-1, 1) for i in range(18)]
    edges = np.array([*np.arange(-REACH, REACH + 0.1, 0.5), *splits, *graded])
    z, w = _rule(np.sort(np.clip(edges, -REACH, REACH)))  # of one shape, so compiled once
    mean = c / root * z
    base = np.broadcast_to(np.arange(-REACH, REACH + 0.1, 0.5), (len(z), 39))
    cuts = [np.clip((k - mean) / max(spread, 1e-300), -REACH, REACH)[:, None] for k in kinks]
    z2, w2 = _rule(np.sort(np.concatenate([base, *cuts], axis=1), axis=1))
    inner = np.sum(w2 * _values(f, mean[:, None] + spread * z2), axis=1)
    return float(np.sum(w * _values(f, root * z) * inner))
