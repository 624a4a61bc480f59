"""Infinite-width neural networks: one description, every width, infinity among them."""

import importlib
import math

__version__ = "0.1.0"
inf = math.inf
_HOMES = {
    "network": None, "data": None, "measure": None, "limits": None, "kernels": None,
}
