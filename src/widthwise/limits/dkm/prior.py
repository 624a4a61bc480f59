"""What rich posteriors keep of the lazy one: its noise and variances."""

from jaxtyping import Float
from numpy import ndarray

from widthwise.learner import Posterior
from widthwise.limits.evidence import best_variances
from widthwise.limits.nngp import CHOSE
from widthwise.limits.noise import best_noise
from widthwise.limits.shared import shared_kernels
from widthwise.network.layer import AbstractLayer
from widthwise.scaling import AbstractScaling


def chosen_for_nngp(
    network: AbstractLayer,
    x: Float[ndarray, "n d"],
    y: Float[ndarray, "n k"],
    *,
    learner: Posterior,
    scaling: AbstractScaling,
) -> tuple[AbstractLayer, float, list[str]]:
    """The network and the noise, chosen for the NNGP where they are not given, and notes.

    >>> import numpy as np
    >>> from widthwise.network import Dense, Readout
    >>> from widthwise.scaling import NTK
    >>> given = dict(learner=Posterior(noise=0.1), scaling=NTK())
    >>> chosen_for_nngp(Dense() >> Readout(), np.eye(3), np.eye(3), **given)[1:]
    (0.1, [])
    """
    noise, chose = learner.noise, CHOSE[learner.criterion]
    if learner.tune:
        network, noise = best_variances(
            network, x, y, scaling=scaling, kernel="nngp", noise=noise, criterion=learner.criterion
        )
        return network, float(noise), [
            f"{chose} noise {noise:.3g} and the network {network!r} for the NNGP."
        ]  # fmt: skip
    if noise is not None:
        return network, float(noise), []
    noise, _ = best_noise(shared_kernels(network, x, scaling=scaling).nngp, y, learner.criterion)
    return network, float(noise), [f"{chose} a noise variance of {noise:.3g} for the NNGP."]
