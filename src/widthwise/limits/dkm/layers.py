"""A network as maps of Gram matrices: one for each layer of weights, by the layers' own rules."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from widthwise.network.begin import input_signal, trial_inputs
from widthwise.network.build import is_weight, tangents
from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer, Identity
from widthwise.network.moments import AbstractMoments, Moments
from widthwise.scaling import AbstractScaling, Richness

NO_TANGENT_KERNEL = (
    "Under a rich scaling the posterior is that of networks, not of networks linear in their "
    "parameters: leave kernel='ntk' out, or use NTK()."
)
NO_NU = "Only DeepKernelMachine chooses nu on rows that are held out: give Posterior(nu=1.0)."


class GramLayer(NamedTuple):
    """A layer of weights and what stands between it and the one before: from the Gram matrix of
    that one's outputs to the prior covariance of its own.

    `times` is its width in units of the network's, `plain` whether it only multiplies the Gram
    matrix by a number.
    """

    layers: tuple[AbstractLayer, ...]
    times: int
    plain: bool


def gram_layers(network: AbstractLayer) -> tuple[GramLayer, ...]:
    """The hidden layers of weights in turn, then the readout.

    >>> [len(found.layers) for found in gram_layers(Dense() >> Relu() >> Dense() >> Readout())]
    [1, 2, 1]

    The network is one that `refusal_of` does not refuse.
    """
    found, waiting = [], []
    for layer in network.sequence:
        waiting.append(layer)
        if isinstance(layer, Dense | Readout):
            silent = all(isinstance(other, Identity) for other in waiting[:-1])
            times = layer.times if isinstance(layer, Dense) else 1
            plain = silent and bool(layer.bias_variance == 0)
            found.append(GramLayer(tuple(waiting), times, plain))
            waiting = []
    return tuple(found)


def is_linear(network: AbstractLayer) -> bool:
    """Whether a network is a product of weight matrices, biases aside."""
    return all(isinstance(layer, Dense | Readout | Identity) for layer in network.sequence)


def refusal_of(network: AbstractLayer) -> str | None:
    """Why a network is no chain of maps of Gram matrices, in a sentence; None where it is."""
    if (sentence := network.refusal()) is not None:
        return sentence
    incoming = input_signal(trial_inputs(network))
    for layer in network.sequence:
        weighty = jax.tree.leaves(layer.weights(incoming), is_leaf=is_weight)
        incoming = layer.signal(incoming)
        if incoming.shape or (weighty and not isinstance(layer, Dense | Readout)):
            return (
                "DeepKernelMachine goes through chains of Dense and functions of one vector, and "
                f"the network has {layer!r}: leave it out, or use NTK() for the Gaussian process."
            )
    if not any(isinstance(layer, Dense) for layer in network.sequence):
        return "The network has no hidden layer whose features could learn: put Dense() in front."
    return None


def as_drawn(scaling: AbstractScaling) -> AbstractScaling:
    """The scaling under which networks start as under this one, but with outputs of order one.

    A rich scaling shrinks the output by the root of the width, and the likelihood's power takes it
    back.
    """
    return Richness(0.5, gamma0=scaling.richness())


def shares(network: AbstractLayer, columns: int, scaling: AbstractScaling) -> tuple[Any, ...]:
    """What the weights do to covariances, in a group for each layer of `gram_layers`."""
    left = list(network.in_sequence(tangents(network, columns, as_drawn(scaling))))
    return tuple(tuple(left.pop(0) for _ in layer.layers) for layer in gram_layers(network))


def passed(layer: GramLayer, own: Any, moments: AbstractMoments) -> list[AbstractMoments]:
    """The moments behind each of its layers; those behind the last are the prior covariance."""
    found = []
    for one, weights in zip(layer.layers, own, strict=True):
        moments = one.kernel(weights, moments)
        found.append(moments)
    return found


def covariance_of(found: list[AbstractMoments]) -> Moments:
    """The last of what was passed."""
    last = found[-1]
    assert isinstance(last, Moments)  # behind fresh weights all features are alike
    return last


def covariance(layer: GramLayer, own: Any, moments: Moments) -> Moments:
    """The prior covariance of a layer's outputs, from the Gram matrix of those before."""
    return covariance_of(passed(layer, own, moments))


def of_gram(gram: Float[Array, "n n"]) -> Moments:
    """The moments of Gaussian features with mean zero and this covariance."""
    none = jnp.zeros(len(gram))
    return Moments(jnp.diagonal(gram), gram, None, jnp.zeros_like(gram), none, None)
