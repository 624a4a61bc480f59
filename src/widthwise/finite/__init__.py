"""Width below infinity: drawing weights, training, empirical kernels."""

from widthwise.finite.empirical import empirical_kernel as empirical_kernel
from widthwise.finite.empirical import linearise as linearise
from widthwise.finite.instance import FiniteNetwork as FiniteNetwork
from widthwise.finite.train import Diverged as Diverged
from widthwise.finite.train import train as train
