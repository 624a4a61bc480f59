"""The rich posterior of deep Gaussian processes and of linear networks: deep kernel machines."""

from widthwise.limits.dkm.graph import GraphPosterior as GraphPosterior
from widthwise.limits.dkm.graph import graph_posterior as graph_posterior
from widthwise.limits.dkm.inducing_machine import InducingMachine as InducingMachine
from widthwise.limits.dkm.linear import linear_grams as linear_grams
from widthwise.limits.dkm.machine import DeepKernelMachine as DeepKernelMachine
