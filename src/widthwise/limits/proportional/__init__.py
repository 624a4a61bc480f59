"""Widths that grow with the data: a Gaussian process whose kernel adapts to them."""

from widthwise.limits.proportional.blocks import ProportionalBlocks as ProportionalBlocks
from widthwise.limits.proportional.blocks import gate_blocks as gate_blocks
from widthwise.limits.proportional.blocks import patch_blocks as patch_blocks
from widthwise.limits.proportional.blocks import proportional_blocks as proportional_blocks
from widthwise.limits.proportional.depth import scale_at_depth as scale_at_depth
from widthwise.limits.proportional.depth import scale_at_effective_depth as scale_at_effective_depth
from widthwise.limits.proportional.outputs import Proportional as Proportional
from widthwise.limits.proportional.outputs import proportional as proportional
