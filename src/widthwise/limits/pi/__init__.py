"""The pi-limit: deep networks at infinite width whose gradients are projected."""

from widthwise.limits.pi.limit import PiLimit as PiLimit
from widthwise.limits.pi.predict import PiState as PiState
