"""Bayesian deep linear networks, exact at every width, as functions of kernel matrices."""

from widthwise.finite.deep_linear.choice import Choice as Choice
from widthwise.finite.deep_linear.choice import evidence_grid as evidence_grid
from widthwise.finite.deep_linear.convolution import ConvolutionMixture as ConvolutionMixture
from widthwise.finite.deep_linear.convolution import convolution_mixture as convolution_mixture
from widthwise.finite.deep_linear.gated import GatedMixture as GatedMixture
from widthwise.finite.deep_linear.gated import gated_mixture as gated_mixture
from widthwise.finite.deep_linear.meijer import log_meijer as log_meijer
from widthwise.finite.deep_linear.one_output import ScaleMixture as ScaleMixture
from widthwise.finite.deep_linear.one_output import scale_mixture as scale_mixture
from widthwise.finite.deep_linear.several_outputs import OutputsMixture as OutputsMixture
from widthwise.finite.deep_linear.several_outputs import fourth_moments as fourth_moments
from widthwise.finite.deep_linear.several_outputs import outputs_mixture as outputs_mixture
