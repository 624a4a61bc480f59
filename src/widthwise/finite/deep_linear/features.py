"""What data teach the features of a deep linear network: Gram matrices in the posterior's mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.finite.deep_linear.draws import parts
from widthwise.finite.deep_linear.meijer import log_meijer
from widthwise.finite.deep_linear.one_output import ScaleMixture
from widthwise.finite.deep_linear.several_outputs import OutputsMixture
from widthwise.solve.turned import Turned

SMALL = 1e-10  # eigenvalues of a covariance of outputs, over the largest, that count as zero


def gram_matrices(
    mixture: ScaleMixture | OutputsMixture,
    widths: Sequence[int],
    cross: Float[np.ndarray, "q n"],
    prior: Float[np.ndarray, "q q"],
) -> list[Float[np.ndarray, "q q"]]:
    """The posterior's mean of each hidden layer's Gram matrix at some rows, from the inputs on.

    >>> from widthwise.finite.deep_linear import scale_mixture
    >>> mixture = scale_mixture(np.eye(2), 3 * np.ones((2, 1)), (4,), noise=0.1)
    >>> gram_matrices(mixture, (4,), np.eye(2), np.eye(2))[0].round(3).tolist()
    [[1.709, 0.948], [0.948, 1.709]]

    In units of the output's kernel: where data teach nothing all are `prior`.

    Args:
        mixture: what `scale_mixture` or `outputs_mixture` found, for these widths.
        widths: of the hidden layers, from the inputs to the output, all finite.
        cross, prior: the output's kernel of these rows with the training rows, and among
            themselves.

    Source: bassetti2024, integral representation of the prior, of which it is a consequence.
    """
    if not widths:
        return []
    if isinstance(mixture, ScaleMixture):
        weights, final = mixture.weights, mixture.scales[:, None, None]
        inverses = [t[:, None, None] for t in _inverse_scales(mixture.scales, widths)]
    else:
        draws = mixture.draws
        weights, final = draws.weights, draws.matrices
        inverses = [np.linalg.pinv(a, rcond=SMALL, hermitian=True) for a in draws.layers[::-1]]
    taught = second_moments(mixture.problem, weights, final, inverses, cross, prior)
    return passed_on(taught, final.shape[1], widths, prior)


def passed_on(
    taught: Sequence[Float[np.ndarray, "q q"]],
    outputs: float,
    widths: Sequence[int],
    prior: Float[np.ndarray, "q q"],
) -> list[Float[np.ndarray, "q q"]]:
    """Each layer's mean Gram matrix, of what the outputs teach it.

    Outputs are f = g_l A_l^(1/2), where g_l are the k combinations of layer l's features that they
    read, N(0, G^(l-1)) as are the other N_l - k, of which data say nothing more. So the mean of G^l
    is (f A_l^-1 f^T + (N_l - k) G^(l-1)) / N_l, in units where A_1 x `prior` is the covariance.

    Args:
        taught: E[f A_l^-1 f^T] for each hidden layer.
        outputs: k.
        widths: N_l.
        prior: G^0.
    """
    gram, found = prior, []
    for own, width in zip(taught, widths, strict=True):
        gram = (own + max(width - outputs, 0.0) * gram) / width
        found.append(gram)
    return found


def second_moments(
    problem: Turned,
    weights: Float[np.ndarray, " s"],
    final: Float[np.ndarray, "s k k"],
    inverses: Sequence[Float[np.ndarray, "s k k"]],
    cross: Float[np.ndarray, "q n"],
    prior: Float[np.ndarray, "q q"],
) -> list[Float[np.ndarray, "q q"]]:
    """E[f T f^T] at some rows, of outputs f with weighted covariances A x K, for several T."""
    turned = cross @ problem.vectors
    rows, outputs = problem.targets.shape
    found = [np.zeros(prior.shape) for _ in inverses]
    for part in parts(len(weights), outputs * max(rows, len(cross)) + rows):
        scales, frames = np.linalg.eigh(final[part])
        scales = np.maximum(scales, 0.0)[:, None]
        shrinks = scales / (scales * problem.values[:, None] + problem.noise)  # (s, n, k)
        means = turned @ (shrinks * (problem.targets @ frames))
        for total, inverse in zip(found, inverses, strict=True):
            middle = frames.swapaxes(1, 2) @ inverse[part] @ frames
            weighted = weights[part, None, None] * (means @ middle)
            total += np.tensordot(weighted, means, ((0, 2), (0, 2)))
            diagonal = weights[part, None] * np.diagonal(middle, axis1=1, axis2=2) * scales[:, 0]
            explained = np.einsum("sk,snk->n", diagonal, shrinks)
            total += float(np.sum(diagonal)) * prior - (turned * explained) @ turned.T
    return found


def _inverse_scales(scales: Float[np.ndarray, " s"], widths: Sequence[int]) -> list[Any]:
    """E[1 / (Q_l ... Q_L) | Q] of the product Q of all layers' scales, for every l.

    It is E[Q_1 ... Q_(l-1) | Q] / Q; weighting by a scale of chi^2(N) / N is drawing it from
    chi^2(N + 2) / N.
    """
    halves, logs = np.array(widths) / 2, np.log(scales)
    at = logs + np.sum(np.log(halves))
    plain, found = log_meijer(at, halves), []
    for layer in range(len(widths)):
        moved = np.array([half + (i < layer) for i, half in enumerate(halves)])
        shift = np.sum(np.log(halves[:layer]))
        found.append(np.exp(log_meijer(at, moved) - plain - shift - logs))
    return found
