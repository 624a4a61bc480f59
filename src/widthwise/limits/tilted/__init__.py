"""The rich posterior of networks with nonlinearities: tilted, not Gaussian, features."""

from widthwise.limits.tilted.machine import TiltedPosterior as TiltedPosterior
