"""Width infinity: one file a limit; `lookup` picks by scaling and learner."""

from widthwise.limits.adam import AdamLimit as AdamLimit
from widthwise.limits.adam_mean_field import AdamMeanField as AdamMeanField
from widthwise.limits.base import AbstractLimit as AbstractLimit
from widthwise.limits.base import EmptyCell as EmptyCell
from widthwise.limits.base import Start as Start
from widthwise.limits.base import Work as Work
from widthwise.limits.dkm import DeepKernelMachine as DeepKernelMachine
from widthwise.limits.dkm import GraphPosterior as GraphPosterior
from widthwise.limits.dkm import InducingMachine as InducingMachine
from widthwise.limits.dkm import graph_posterior as graph_posterior
from widthwise.limits.dkm import linear_grams as linear_grams
from widthwise.limits.evidence import log_evidence as log_evidence
from widthwise.limits.extrapolated import Extrapolated as Extrapolated
from widthwise.limits.matrices import condition as condition
from widthwise.limits.matrices import descend as descend
from widthwise.limits.mean_field import DynamicalMeanField as DynamicalMeanField
from widthwise.limits.mean_field import fluctuations as fluctuations
from widthwise.limits.mean_field import initial_fluctuations as initial_fluctuations
from widthwise.limits.nngp import NNGP as NNGP
from widthwise.limits.pi import PiLimit as PiLimit
from widthwise.limits.rich_linear import RichLinear as RichLinear
from widthwise.limits.table import lookup as lookup
from widthwise.limits.tangent import TangentKernel as TangentKernel
from widthwise.limits.tilted import TiltedPosterior as TiltedPosterior
