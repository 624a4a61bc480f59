"""Deep kernel machines on the nodes of one graph, a few of which have labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from threadpoolctl import threadpool_limits

from widthwise.learner import Posterior
from widthwise.limits.base import EmptyCell
from widthwise.limits.dkm.full import divergence, first_root, whiten
from widthwise.limits.dkm.layers import (
    NO_NU,
    GramLayer,
    gram_layers,
    is_linear,
    of_gram,
    refusal_of,
    shares,
)
from widthwise.limits.dkm.minimise import minimise
from widthwise.limits.dkm.triangles import misfit
from widthwise.limits.dkm.variational import (
    PREDICTING,
    Outputs,
    draws_of,
    expected_categorical,
    mean_probabilities,
    output_divergence,
)
from widthwise.network.layer import AbstractLayer
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.scaling import AbstractScaling, MuP
from widthwise.solve import NotSolvable, float64

JITTER = 1e-8  # of the features' kernels, relative to their mean diagonal
DRAWS = 256  # of the outputs of each labelled node, always the same
TOLERANCE = 1e-5  # of the gradient, over that at the prior's Gram matrices


class GraphPosterior(NamedTuple):
    """What the labels of some nodes say of all n.

    `value` are mean outputs, or with a categorical likelihood mean chances; `variance` is that of
    every output, beside noise. `grams` are the Gram matrices of the hidden layers, `kernel` the
    outputs' prior covariance that they make, `bound` the objective, of which the gradient is
    `residual` times what it was at the prior's Gram matrices.
    """

    value: Float[np.ndarray, "n k"]
    variance: Float[np.ndarray, " n"]
    grams: tuple[Float[np.ndarray, "n n"], ...]
    kernel: Float[np.ndarray, "n n"]
    bound: float
    residual: float


def graph_posterior(
    network: AbstractLayer,
    x: Float[np.ndarray, "n d"],
    adjacency: Float[np.ndarray, "n n"],
    y: Float[np.ndarray, "l k"],
    labelled: Int[np.ndarray, " l"],
    learner: Posterior,
    scaling: AbstractScaling | None = None,
) -> GraphPosterior:
    """The deep kernel machine of a graph convolutional network, semi-supervised: all nodes have
    rows in the Gram matrices, some have labels.

    >>> adjacency = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    >>> found = graph_posterior(Dense() >> Relu() >> Readout(), np.eye(3), adjacency,
    ...                         np.array([[1.0], [-1.0]]), np.array([0, 2]),
    ...                         Posterior(prior="deep_gp", noise=0.1))
    >>> bool(abs(found.value[1, 0]) < 1e-6)
    True

    Every layer of weights reads sums over neighbours: h = A f(h) W + b with the adjacency matrix A,
    which is mostly normalised before, so that its prior covariance is variance * A K(G) A^T and the
    bias's. Gram matrices maximise what those of `DeepKernelMachine` do.

    Args:
        network: a chain of Dense layers and functions of one node's features, then Readout.
        x: the nodes' features.
        adjacency: weights of links, also to themselves, as the layers sum over them.
        y: targets of the labelled nodes; for a categorical likelihood one-hot.
        labelled: their numbers.
        learner: nu, noise and likelihood are read; noise is needed for a Gaussian one.
        scaling: a rich one; `MuP()` unless given.

    Raises ValueError for arrays that do not fit, EmptyCell for a network or learner that it is not
    for, NotSolvable where Gram matrices are singular.

    Source: anson2025, graph convolutional deep kernel machine.
    """
    _check(network, x, adjacency, y, labelled, learner)
    scaling, layers = MuP() if scaling is None else scaling, gram_layers(network)
    nus = _nus(learner, layers)
    with float64(), threadpool_limits(1, "blas"):
        posed = _posed(network, x, adjacency, y, labelled, learner, scaling, nus)
        free = _begin(layers, posed, len(x))

        def evaluate(at):
            (value, _), slope = _evaluated(layers, posed, jax.tree.map(jnp.asarray, at))
            return value, slope

        found = minimise(evaluate, free, tolerance=TOLERANCE)
        if not np.isfinite(found.value):
            raise NotSolvable(
                "The nodes' Gram matrices are singular: merge nodes that have the same features "
                "and neighbours, or give a larger nu or noise."
            )
        best = jax.tree.map(jnp.asarray, found.free)
        grams, kernel = _passage(layers, posed, best)
        outputs = _outputs(posed, kernel, best[-1])
        value = outputs.mean
        if posed.noise is None:
            key = jax.random.key(0)
            draws = draws_of(key, PREDICTING, (1, value.shape[1]), value.dtype)
            value = mean_probabilities(outputs, draws)
    return GraphPosterior(
        np.asarray(value), np.asarray(outputs.variance), tuple(map(np.asarray, grams)),
        np.asarray(kernel), -found.value, found.residual,
    )  # fmt: skip


class _Posed(NamedTuple):
    """All that is settled; `root` is one of the first layer's prior covariance, `draws` are None
    and `y` targets for a Gaussian likelihood, labels for a categorical one."""

    own: Any
    root: Any
    adjacency: Any
    labelled: Any
    y: Any
    nus: tuple[float, ...]
    noise: Any
    draws: Any


def _posed(network, x, adjacency, y, labelled, learner, scaling, nus) -> _Posed:
    own = jax.tree.map(float, shares(network, x.shape[1], scaling))
    layers, a = gram_layers(network), jnp.asarray(adjacency)
    first = _prior(own[0], a, _inner(layers[0], own[0], Moments.of(jnp.asarray(x))))
    noise, draws, targets = learner.noise, None, jnp.asarray(y)
    if learner.likelihood == "categorical":
        noise, targets = None, jnp.argmax(targets, axis=1)
        draws = draws_of(jax.random.key(0), DRAWS, y.shape, np.float64)
    root = jnp.asarray(first_root(np.asarray(first)))
    return _Posed(own, root, a, jnp.asarray(labelled), targets, nus, noise, draws)


def _begin(layers: tuple[GramLayer, ...], posed: _Posed, nodes: int) -> tuple[Any, ...]:
    """Triangles of zeros, where G = K; None where nu is infinite. The last one is of the outputs at
    the labelled nodes: their triangle and, in the rows below it, their means."""
    sizes = [posed.root.shape[1]]
    for layer, own in zip(layers[1:-1], posed.own[1:-1], strict=True):
        features = sizes[-1] if layer.plain else nodes
        sizes.append(features + int(own[-1].bias.variance > 0))
    both = zip(sizes, posed.nus, strict=True)
    free = [np.zeros((s, s)) if np.isfinite(nu) else None for s, nu in both]
    size = 0 if posed.draws is None else sum(posed.draws.shape[1:])
    return (*free, np.zeros((size, size)) if size else None)


def _inner(layer: GramLayer, own: Any, moments: AbstractMoments) -> Any:
    """The kernel of the features that a layer of weights sums over neighbours."""
    for one, weights in zip(layer.layers[:-1], own[:-1], strict=True):
        moments = one.kernel(weights, moments)
    return moments.mixed().xy  # type: ignore[attr-defined]


def _prior(own: Any, adjacency: Any, inner: Any) -> Any:
    """The prior covariance of a layer's outputs."""
    return own[-1].weight.variance * adjacency @ inner @ adjacency.T + own[-1].bias.variance


def _root(own: Any, adjacency: Any, inner: Any) -> Any:
    """A root of it, with a last column for the bias; `inner` is a root of the features' kernel."""
    root = jnp.sqrt(own[-1].weight.variance) * adjacency @ inner
    constant = jnp.full((len(root), 1), jnp.sqrt(own[-1].bias.variance))
    return jnp.concatenate([root, constant], axis=1)


def _factor(inner: Any) -> Any:
    jitter = JITTER * jnp.mean(jnp.diagonal(inner))
    return jnp.linalg.cholesky(inner + jitter * jnp.eye(len(inner)))


def _passage(layers: tuple[GramLayer, ...], posed: _Posed, free: Any) -> tuple[list[Any], Any]:
    """The Gram matrices of the hidden layers, and the readout's covariance."""
    grams, gram, moments, root, a = [], None, None, posed.root, posed.adjacency
    for number, (layer, own) in enumerate(zip(layers[:-1], posed.own[:-1], strict=True)):
        if moments is not None:
            inner = _inner(layer, own, moments)
            root = _root(own, a, gram if layer.plain and gram is not None else _factor(inner))
        size = root.shape[1] if free[number] is None else len(free[number])
        gram = root[:, :size]  # without the column of a bias that there is not
        if free[number] is not None:
            gram = gram @ whiten(free[number], posed.nus[number])
        grams.append(gram @ gram.T)
        moments = of_gram(grams[-1])
    assert moments is not None
    return grams, _prior(posed.own[-1], a, _inner(layers[-1], posed.own[-1], moments))


def _loss(layers: tuple[GramLayer, ...], posed: _Posed, free: Any):
    kernel = _passage(layers, posed, free)[1]
    kept = zip(free[:-1], posed.nus, strict=True)
    apart = sum(divergence(own, nu) for own, nu in kept if own is not None)
    at = posed.labelled
    if posed.draws is None:
        return misfit(kernel[jnp.ix_(at, at)], posed.y, posed.noise) + apart, kernel
    mean, root = _split(posed, free[-1])
    outputs = _outputs(posed, kernel, free[-1])
    own = Outputs(outputs.mean[at], outputs.variance[at])
    fit = jnp.sum(expected_categorical(own, posed.y, posed.draws))
    return apart + output_divergence(mean, root) - fit, kernel


_evaluated = jax.jit(jax.value_and_grad(_loss, argnums=2, has_aux=True), static_argnums=0)


def _split(posed: _Posed, square: Float[Array, "s s"]) -> tuple[Any, Any]:
    """Whitened means (l, k) and the triangle of the outputs at the labelled nodes."""
    count = posed.draws.shape[1]
    return square[count:, :count].T, whiten(square[:count, :count], 1.0)


def _outputs(posed: _Posed, kernel: Float[Array, "n n"], square: Any) -> Outputs:
    """Of all nodes."""
    at, cross = posed.labelled, kernel[:, posed.labelled]
    noise = JITTER * jnp.mean(jnp.diagonal(kernel)) if posed.noise is None else posed.noise
    lower = jnp.linalg.cholesky(cross[at] + noise * jnp.eye(len(at)))
    side = jax.scipy.linalg.solve_triangular(lower, cross.T, lower=True).T
    spare = jnp.maximum(jnp.diagonal(kernel) - jnp.sum(side**2, axis=1), 0.0)
    if posed.noise is not None:
        half = jax.scipy.linalg.solve_triangular(lower, posed.y, lower=True)
        return Outputs(side @ half, spare)
    mean, root = _split(posed, square)
    return Outputs(side @ mean, spare + jnp.sum((side @ root) ** 2, axis=1))


def _nus(learner: Posterior, layers: tuple[GramLayer, ...]) -> tuple[float, ...]:
    nu, hidden = learner.nu, layers[:-1]
    assert nu is not None  # `_check` has seen to it
    given = nu if isinstance(nu, tuple) else (nu,) * len(hidden)
    if len(given) != len(hidden):
        raise ValueError(
            f"nu of Posterior is {nu}, and the network has {len(hidden)} hidden layers: give one "
            "number for each, or one for all."
        )
    return tuple(float(one * layer.times) for one, layer in zip(given, hidden, strict=True))


def _check(network, x, adjacency, y, labelled, learner: Posterior) -> None:
    if (sentence := refusal_of(network)) is not None:
        raise EmptyCell(sentence)
    if learner.prior == "network" and not is_linear(network):
        raise EmptyCell(
            "graph_posterior is of deep Gaussian processes: use Posterior(prior='deep_gp')."
        )
    if learner.inducing is not None or learner.tune or learner.kernel == "ntk":
        raise EmptyCell("graph_posterior has neither inducing points, tune nor kernel: omit them.")
    if learner.likelihood == "gaussian" and learner.noise is None:
        raise ValueError("The Gaussian likelihood needs a noise: give Posterior(noise=0.1).")
    if learner.nu is None:
        raise ValueError(NO_NU)
    nus = learner.nu if isinstance(learner.nu, tuple) else (learner.nu,)
    if not min(nus) > 0:
        raise ValueError(f"nu is {learner.nu}: for a graph give numbers over 0.")
    n = len(x)
    if adjacency.shape != (n, n) or not (np.isfinite(x).all() and np.isfinite(adjacency).all()):
        raise ValueError(
            f"The adjacency matrix has shape {adjacency.shape} and there are {n} nodes: give a "
            "finite matrix of nodes by nodes, and finite features."
        )
    unique = len(np.unique(labelled)) == len(labelled) == len(y) > 0
    if not unique or min(labelled) < 0 or max(labelled) >= n:
        raise ValueError(
            f"There are {len(y)} rows of targets and {len(labelled)} labelled nodes: give one row "
            f"for each, and numbers from 0 to {n - 1}, each once."
        )
