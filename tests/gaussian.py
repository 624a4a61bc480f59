"""Gaussian expectations by adaptive panels: slow, plain, independent of the library."""

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.network.nonlinear import AbstractQuadrature, AbstractSmooth, Exp

REACH = 9.5  # standard deviations: the normal weight beyond is 2e-21
NODE, WEIGHT = np.polynomial.legendre.leggauss(14)


def kinks_of(f) -> tuple[float, ...]:
    """Where f may have a kink: what it says, or 0 where it says nothing."""
    if isinstance(f, AbstractQuadrature):
        return f.kinks
    return () if isinstance(f, AbstractSmooth) else (0.0,)


def reach_of(f, variance) -> float:
    """Where the integrals of f may end. An exponential moves the bulk of E[f(u)^2] outwards, by
    twice its rate in units of u."""
    return REACH + 2 * f.b * np.sqrt(variance) if isinstance(f, Exp) else REACH


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


def _panels(reach):
    return np.linspace(-reach, reach, 2 * round(2 * reach) + 1)


def _values(f, h):
    return np.asarray(f(jnp.asarray(h, dtype="float64")))


def alone(f, a, kinks=(), reach=REACH):
    """E[f(u)^2] for u ~ N(0, a)."""
    splits = [np.clip(k / np.sqrt(a), -reach, reach) for k in kinks]
    z, w = _rule(np.sort([*_panels(reach), *splits]))
    return float(w @ _values(f, np.sqrt(a) * z) ** 2)


def expectation(f, a, c, b, kinks=(), reach=REACH):
    """E[f(u) f(v)] for (u, v) ~ N(0, [[a, c], [c, b]])."""
    root, size = np.sqrt(a), np.sqrt(a * b)
    spread = np.sqrt(max((size - c) * (size + c), 0.0) / a)
    splits = [k / root for k in kinks] + [k * root / c if c else 0.0 for k in kinks]
    # E[f(v) | u] bends within `spread` of a kink: panels grow from there in powers of four
    graded = [p + s * 4.0**-i for p in splits for s in (-1, 1) for i in range(18)]
    edges = np.array([*_panels(reach), *splits, *graded])
    z, w = _rule(np.sort(np.clip(edges, -reach, reach)))  # of one shape, so compiled once
    mean = c / root * z
    base = np.broadcast_to(_panels(reach), (len(z), len(_panels(reach))))
    cuts = [np.clip((k - mean) / max(spread, 1e-300), -reach, reach)[:, None] for k in kinks]
    z2, w2 = _rule(np.sort(np.concatenate([base, *cuts], axis=1), axis=1))
    inner = np.sum(w2 * _values(f, mean[:, None] + spread * z2), axis=1)
    return float(np.sum(w * _values(f, root * z) * inner))
