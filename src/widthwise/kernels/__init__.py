"""Kernel matrices: from a network and inputs to a matrix."""

from widthwise.kernels.function import kernel_function as kernel_function
from widthwise.kernels.matrix import KernelDiagonals as KernelDiagonals
from widthwise.kernels.matrix import KernelMatrices as KernelMatrices
from widthwise.kernels.matrix import explain as explain
from widthwise.kernels.matrix import kernel_diagonal as kernel_diagonal
from widthwise.kernels.matrix import kernel_matrix as kernel_matrix
from widthwise.kernels.monte_carlo import KernelEstimates as KernelEstimates
from widthwise.kernels.monte_carlo import MonteCarlo as MonteCarlo
from widthwise.kernels.operator import ComputedKernel as ComputedKernel
from widthwise.kernels.positions import position_kernels as position_kernels
from widthwise.kernels.stored import StoredKernel as StoredKernel
