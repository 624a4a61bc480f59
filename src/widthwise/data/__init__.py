"""Readers for the formats people have. Each ends in `Data`: arrays, their coding, and notes on it.

from widthwise.data import load

data = load("houses.csv", target="price")
"""

from widthwise.data.base import Data as Data
from widthwise.data.base import DataError as DataError
from widthwise.data.loading import from_arrays as from_arrays
from widthwise.data.loading import load as load
from widthwise.data.loading import names as names
