"""Faster implementations of a block and of its attention, as functions of tensors, not modules."""

from swinv2_backbone.kernels.choose import KERNELS, Kernel
from swinv2_backbone.kernels.parameters import BlockParameters

__all__ = ["KERNELS", "BlockParameters", "Kernel"]
