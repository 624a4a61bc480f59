"""Linear systems, spectra and flows: thin drivers over libraries."""

from widthwise.solve.conjugate import Solution as Solution
from widthwise.solve.conjugate import conjugate_gradients as conjugate_gradients
from widthwise.solve.flow import integrate as integrate
from widthwise.solve.lanczos import Quadrature as Quadrature
from widthwise.solve.lanczos import quadrature as quadrature
from widthwise.solve.linear import Factor as Factor
from widthwise.solve.linear import NotSolvable as NotSolvable
from widthwise.solve.linear import cholesky as cholesky
from widthwise.solve.nystrom import Nystrom as Nystrom
from widthwise.solve.packed import PackedFactor as PackedFactor
from widthwise.solve.precision import float64 as float64
from widthwise.solve.spectrum import Spectrum as Spectrum
from widthwise.solve.spectrum import flow_fraction as flow_fraction
from widthwise.solve.spectrum import largest_eigenvalue as largest_eigenvalue
from widthwise.solve.spectrum import steps_fraction as steps_fraction
from widthwise.solve.symmetric import AbstractSymmetric as AbstractSymmetric
from widthwise.solve.symmetric import blocks_of as blocks_of
