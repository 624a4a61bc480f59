"""Empirical kernels of any function of parameters and rows, and its Taylor expansions."""

from widthwise.finite.empirical.choice import Explanation as Explanation
from widthwise.finite.empirical.expand import tangent_product as tangent_product
from widthwise.finite.empirical.expand import taylor_expand as taylor_expand
from widthwise.finite.empirical.kernel import empirical_kernel as empirical_kernel
from widthwise.finite.empirical.kernel import explain_kernel as explain_kernel
