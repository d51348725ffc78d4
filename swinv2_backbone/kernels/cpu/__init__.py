"""A whole block on a CPU, tile by tile."""

from swinv2_backbone.kernels.cpu.block import tiled_block

__all__ = ["tiled_block"]
