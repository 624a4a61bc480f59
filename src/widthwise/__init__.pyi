from math import inf as inf

from . import data as data
from . import finite as finite
from . import kernels as kernels
from . import limits as limits
from . import measure as measure
from . import network as network
from . import reporting as reporting
from .family import Family as Family
from .family import Member as Member
from .inference import Inducing as Inducing
from .inference import Sampling as Sampling
from .kernels import MonteCarlo as MonteCarlo
from .kernels import kernel_matrix as kernel_matrix
from .learner import Adam as Adam
from .learner import GradientDescent as GradientDescent
from .learner import GradientFlow as GradientFlow
from .learner import Posterior as Posterior
from .learner import SignDescent as SignDescent
from .network import *  # noqa: F403  the package is the registry
from .projection import Projection as Projection
from .reporting import report as report
from .run import Run as Run
from .scaling import ABC as ABC
from .scaling import NTK as NTK
from .scaling import MeanField as MeanField
from .scaling import MuP as MuP
from .scaling import Richness as Richness
from .scaling import Standard as Standard
from .schedule import Constant as Constant
from .schedule import Cosine as Cosine
from .schedule import Drop as Drop
from .schedule import Linear as Linear

__version__: str
