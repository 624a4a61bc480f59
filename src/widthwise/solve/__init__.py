"""Linear systems, spectra and flows: thin drivers over libraries."""

from widthwise.solve.linear import NotSolvable as NotSolvable
from widthwise.solve.linear import cholesky as cholesky
from widthwise.solve.precision import float64 as float64
