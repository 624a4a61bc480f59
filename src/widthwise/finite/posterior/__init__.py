"""Bayesian finite networks: linear ones as exact mixtures, all others by sampling."""

from widthwise.finite.posterior.chains import check_installed as check_installed
from widthwise.finite.posterior.convolved import convolved_posterior as convolved_posterior
from widthwise.finite.posterior.diagnostics import Diagnostics as Diagnostics
from widthwise.finite.posterior.mixture import MixtureState as MixtureState
from widthwise.finite.posterior.mixture import exact_widths as exact_widths
from widthwise.finite.posterior.mixture import mixture_posterior as mixture_posterior
from widthwise.finite.posterior.sampled import SampledState as SampledState
from widthwise.finite.posterior.sampled import check_draws as check_draws
from widthwise.finite.posterior.sampled import sampled_posterior as sampled_posterior
