"""The functions of native.cpp on tensors.

Legend: n tokens of a tile; C channels; nH heads of 32 channels; N tokens of a window; T threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.kernels.tiles import Group
from swinv2_backbone.packing import Size

VARIABLE = "SWINV2_NATIVE"  # 0: never use the library
HEAD_DIM = 32  # as in native.cpp
VERSION = 2  # as in native.cpp; it changes with the functions and their arguments
LEVELS = {"AVX2": 0, "AVX512": 1}  # PyTorch's name of the instructions -> level, on x86
X86 = ("x86_64", "AMD64")
FOLDER = Path(__file__).parent
# The OpenMP of PyTorch, with whose threads the library must share the cores.
OPENMP = re.compile(r"lib(gomp|iomp5|omp)\b[^/]*$")


class Pooling(NamedTuple):
    """The settings of ROIAlign, as in torchvision."""

    output_size: Size  # rows and columns of bins
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


class Native:
    """The library at one level of instructions."""

    def __init__(self, library: ctypes.CDLL, level: int):
        self._library, self._level = library, level

    def attend(self, qkv: Tensor, scale: Tensor, bias: Tensor, group: Group, out: Tensor) -> None:
        """Write the attention of a group's windows to its tokens of ``out`` (n, C).

        Args:
            qkv: (n, 3C).
            scale: (nH, 1).
            bias: (nH, N, N).
        """
        self._call("attend", qkv, scale, bias, _layout(group), len(scale), out)

    def attend_backward(
        self,
        grad: Tensor,
        qkv: Tensor,
        scale: Tensor,
        bias: Tensor,
        group: Group,
        grad_qkv: Tensor,
        grad_scale: Tensor,
        grad_bias: Tensor,
    ) -> None:
        """Write the gradient of ``qkv`` (n, 3C) from that of ``out``, ``grad`` (n, C).

        The sums of each thread are added to ``grad_scale`` (T, nH) float64 and to ``grad_bias``,
        (T, nH, N, N), or (1, nH, N, N), which all threads share.
        """
        arguments = (grad, qkv, scale, bias, _layout(group), len(scale), grad_qkv)
        shared = int(len(grad_bias) == 1)
        self._call("attend_backward", *arguments, grad_scale, grad_bias, shared)

    def bias(self, offsets: Tensor, size: Size) -> Tensor:
        """Return the bias of all pairs of a window (nH, N, N) from that of its offsets."""
        tokens = size[0] * size[1]
        out = offsets.new_empty(len(offsets), tokens, tokens)
        self._call("bias", offsets, len(offsets), *size, out)
        return out

    def bias_backward(self, grad: Tensor, size: Size) -> Tensor:
        """Return the gradient of the offsets (nH, 2 h - 1, 2 w - 1) from that of all pairs."""
        found = grad.new_zeros(len(grad), *(2 * length - 1 for length in size))
        self._call("bias_backward", grad, len(grad), *size, found)
        return found

    def add_norm(
        self,
        x: Tensor,
        branch: Tensor,
        weight: Tensor,
        bias: Tensor,
        scales: Tensor | None,
        eps: float,
    ) -> Tensor:
        """Return ``x + scales * norm(branch)``, all (n, C); ``scales`` is (n, 1)."""
        out = torch.empty_like(x)
        sizes = (ctypes.c_int64(len(x)), x.shape[1], ctypes.c_float(eps))
        self._call("add_norm", x, branch, weight, bias, scales, out, *sizes)
        return out

    def add_norm_backward(
        self, grad: Tensor, branch: Tensor, weight: Tensor, scales: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of ``branch`` (n, C), and of the norm's weight and bias (C)."""
        out = torch.empty_like(grad)
        sums = grad.new_zeros(torch.get_num_threads(), 2, grad.shape[1])
        sizes = (ctypes.c_int64(len(grad)), grad.shape[1], ctypes.c_float(eps))
        self._call("add_norm_backward", grad, branch, weight, scales, out, sums, *sizes)
        by_weight, by_bias = sums.sum(0)
        return out, by_weight, by_bias

    def gelu_(self, x: Tensor) -> Tensor:
        """Replace ``x`` by GELU of it."""
        self._call("gelu", x, x, ctypes.c_int64(x.numel()))
        return x

    def gelu(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        self._call("gelu", x, out, ctypes.c_int64(x.numel()))
        return out

    def gelu_backward_(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return GELU of ``x``; replace ``grad``, the gradient of that, by the one of ``x``."""
        values = torch.empty_like(x)
        self._call("gelu_backward", x, grad, values, ctypes.c_int64(x.numel()))
        return values

    def roi_align(self, maps: Tensor, boxes: Tensor, pooling: Pooling) -> Tensor:
        """Return the bins (K, C, rows, columns) of boxes (K, 5) on maps (B, C, H, W).

        Args:
            boxes: index of the image, left, top, right, bottom.
        """
        bins = maps.new_empty(len(boxes), maps.shape[1], *pooling.output_size)
        self._align(maps, boxes, pooling, bins, backward=False)
        return bins

    def roi_align_backward(
        self, grad: Tensor, boxes: Tensor, shape: torch.Size, pooling: Pooling
    ) -> Tensor:
        """Return the gradient of maps of a ``shape`` from that of the bins."""
        maps = grad.new_zeros(shape)
        self._align(maps, boxes, pooling, grad, backward=True)
        return maps

    def _align(
        self, maps: Tensor, boxes: Tensor, pooling: Pooling, bins: Tensor, *, backward: bool
    ) -> None:
        batch, channels, height, width = maps.shape
        number, scale = ctypes.c_int64(len(boxes)), ctypes.c_float(pooling.spatial_scale)
        sizes = (number, batch, channels, height, width, *pooling.output_size)
        settings = (scale, pooling.sampling_ratio, int(pooling.aligned), int(backward))
        self._call("roi_align", maps, boxes, *sizes, *settings, bins)

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function; each tensor must be contiguous."""
        passed = [_passed(one) for one in arguments]
        getattr(self._library, f"swinv2_{name}")(self._level, torch.get_num_threads(), *passed)


def _passed(argument: object) -> object:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_void_p(None) if argument is None else argument


def _layout(group: Group) -> ctypes.Array:
    """Return the group as the struct of native.cpp."""
    height, width = group.map_size
    numbers = (group.first, group.maps, *group.grid, *group.steps, height * width, width)
    return (ctypes.c_int64 * 10)(*numbers, *group.size)


def native() -> Native | None:
    """Return the library, or None if it cannot be used."""
    return _loaded(os.environ.get(VARIABLE, ""))[0]


def state() -> str:
    """Return the instructions that the library uses, or why it is not used."""
    return _loaded(os.environ.get(VARIABLE, ""))[1]


@lru_cache(maxsize=2)
def _loaded(asked: str) -> tuple[Native | None, str]:
    if asked == "0":
        return None, f"not used ({VARIABLE}=0)"
    files = [*FOLDER.glob("_kernels*.so"), *FOLDER.glob("_kernels*.pyd")]
    if not files:
        return None, "not built: no C++ compiler with OpenMP when the package was installed"
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        if openmp := _openmp():
            ctypes.CDLL(openmp, ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(files[0]))
        available, version = library.swinv2_levels(), library.swinv2_version()
    except (OSError, AttributeError) as error:
        return None, f"cannot be loaded: {error}"
    if version != VERSION:
        return None, f"built from other sources (version {version}, not {VERSION}): install again"
    level = LEVELS.get(capability) if platform.machine() in X86 else 0
    if level is None or not available >> level & 1:
        return None, f"not for this processor ({capability})"
    return Native(library, level), capability


def _openmp() -> str | None:
    """Return the OpenMP that PyTorch has loaded, on Linux."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[5] for line in lines if line.count("/"))
    return next((path for path in paths if OPENMP.search(path)), None)
