"""Width below infinity: drawing weights, training, empirical kernels."""

from widthwise.finite.empirical import empirical_kernel as empirical_kernel
from widthwise.finite.empirical import explain_kernel as explain_kernel
from widthwise.finite.empirical import tangent_product as tangent_product
from widthwise.finite.empirical import taylor_expand as taylor_expand
from widthwise.finite.instance import FiniteNetwork as FiniteNetwork
from widthwise.finite.linearised import LinearisedNetwork as LinearisedNetwork
from widthwise.finite.train import train as train
