"""The network that is meant where none is given."""

from widthwise.network.dense import Dense, Readout
from widthwise.network.layer import AbstractLayer
from widthwise.network.nonlinear import Relu


def usual_network() -> AbstractLayer:
    """Two hidden ReLU layers whose biases start with variance 0.1.

    >>> usual_network().layers[0]
    Dense(bias_variance=0.1)

    Without biases at the start the posterior of few features knows directions only.
    """
    hidden = Dense(bias_variance=0.1)
    return hidden >> Relu() >> hidden >> Relu() >> Readout()
