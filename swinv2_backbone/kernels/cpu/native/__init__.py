"""Fused kernels in C++ for float32 on a CPU: attention of a tile, residual + norm, GELU,
and ROIAlign.

They are built when the package is installed, if there is a C++ compiler with OpenMP.  Without them
everything is computed by the operators of PyTorch and torchvision, with the same results, more
slowly.
"""

from swinv2_backbone.kernels.cpu.native.library import (
    HEAD_DIM,
    VARIABLE,
    Native,
    Pooling,
    native,
    state,
)

__all__ = ["HEAD_DIM", "VARIABLE", "Native", "Pooling", "native", "state"]
