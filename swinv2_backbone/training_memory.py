"""The GPU memory of training a backbone, counted for a model and images of any size.

Weights, gradients and the optimizer's state follow from the number of parameters.  Saved
activations are counted in a forward of the real model.  For the GPU kernel, its tensors have shapes
but no memory, so that SwinV2-G can be counted on a laptop.  Temporary memory of kernels is not
counted, nor are a detector's neck and heads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.build import build_backbone
from swinv2_backbone.packing import tokens_per_image

FLOAT = 4  # bytes; weights, gradients and moments are float32 also in mixed precision
MOMENTS = 2  # of AdamW
SHARDING = ("none", "optimizer", "all")
GIB = 2**30


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one process."""

    weights: float
    gradients: float
    optimizer: float
    exchange: float  # buckets of gradients, or the gathered block
    activations: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Setting:
    """Settings of a run: ``size`` is (height, width) in pixels, ``batch`` images of one process."""

    model: str
    size: tuple[int, int]
    window: int | Sequence[int] | None = None
    batch: int = 1
    dtype: torch.dtype | None = torch.bfloat16  # of mixed precision; None: float32 throughout
    checkpointing: bool = False
    kernel: str = "triton"


def training_memory(setting: Setting, sharding: str = "none", processes: int = 1) -> TrainingMemory:
    """Return the bytes that each process needs.

    Args:
        sharding: One of ``SHARDING``, as SOLVER.SHARDING.
    """
    if sharding not in SHARDING:
        raise ValueError(f"sharding must be one of {', '.join(SHARDING)}, got {sharding!r}")
    if sharding != "none" and processes < 2:
        raise ValueError(f"sharding {sharding!r} needs several processes")
    parameters, largest, activations = count(setting)
    whole, shared = FLOAT * parameters, processes if sharding == "all" else 1
    exchange = whole if processes > 1 else 0.0
    if sharding == "all":  # a block's weights and gradients, and the next one's weights
        exchange = 3 * FLOAT * largest
    return TrainingMemory(
        weights=whole / shared,
        gradients=whole / shared,
        optimizer=MOMENTS * whole / (processes if sharding != "none" else 1),
        exchange=exchange,
        activations=activations,
    )


def count(setting: Setting) -> tuple[int, int, int]:
    """Return parameters of the backbone and of its largest block, and bytes of activations."""
    weightless = setting.kernel == "triton"
    if weightless:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # otherwise the kernel requires a GPU
    with torch.device("meta" if weightless else "cpu"):
        model = build_backbone(
            setting.model,
            window_size=setting.window,
            kernel=setting.kernel,
            activation_checkpointing=setting.checkpointing,
        ).train()
    with without_memory() if weightless else nullcontext():
        if weightless:
            give_shapes(model)
        images = torch.empty(setting.batch, 3, *setting.size)
        kept = kept_bytes(model, images, setting)
        # During its backward a block has all its activations; with tiles, those of one tile.
        if setting.checkpointing and setting.kernel != "tiles":
            kept += max(block_bytes(model, images, setting))
    blocks = [m for m in model.modules() if isinstance(m, SwinV2Block)]
    return _parameters(model), max(map(_parameters, blocks)), kept


@contextmanager
def without_memory() -> Iterator[None]:
    """Make the tensors of the block fake: they have shapes and no memory."""
    tokens_per_image.cache_clear()  # fake and real tensors cannot be mixed
    try:
        with FakeTensorMode():
            yield
    finally:
        tokens_per_image.cache_clear()


def give_shapes(model: nn.Module) -> None:
    """Replace the meta parameters by fake ones, which the operators accept."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))


def kept_bytes(model: SwinV2, images: Tensor, setting: Setting) -> int:
    """Return the bytes of saved activations, without parameters."""
    return saved_bytes(model, lambda: model(images), setting.dtype, setting.checkpointing)


def saved_bytes(
    model: nn.Module,
    forward: Callable[[], Any],
    dtype: torch.dtype | None,
    checkpointing: bool = False,
) -> int:
    """Return the bytes that a forward saves for the backward, without the model's parameters.

    Args:
        dtype: dtype of mixed precision; None: float32 throughout.
        checkpointing: the blocks in ``model`` save their inputs instead of their activations.
    """
    kept: dict[StorageWeakRef, int] = {}
    own = {StorageWeakRef(p.untyped_storage()) for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (reference := StorageWeakRef(storage)) not in own:
            kept[reference] = storage.nbytes()
        return tensor

    def note_input(block: nn.Module, given: tuple) -> None:
        note(given[0])

    handles = []
    if checkpointing:  # saves the inputs of blocks, where no hook sees them
        blocks = [m for m in model.modules() if isinstance(m, SwinV2Block)]
        handles = [b.register_forward_pre_hook(note_input) for b in blocks]
    with (
        saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        outputs = forward()  # kept to the end, as freed storages may be reused
    del outputs
    for handle in handles:
        handle.remove()
    return sum(kept.values())


def block_bytes(model: SwinV2, images: Tensor, setting: Setting) -> list[int]:
    """Return the bytes that checkpointing saves in one block of each stage."""
    found, with_checkpointing = [], kept_bytes(model, images, setting)
    for stage in model.layers:
        block = next(module for module in stage.modules() if isinstance(module, SwinV2Block))
        block.activation_checkpointing = False
        found.append(kept_bytes(model, images, setting) - with_checkpointing)
        block.activation_checkpointing = True
    return found


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def table_of(setting: Setting, processes: int) -> str:
    """Return the memory of each sharding in GiB, as Markdown."""
    lines = [
        "| sharding | weights | gradients | optimizer | exchange | activations | together |",
        "|---|---|---|---|---|---|---|",
    ]
    for sharding in SHARDING if processes > 1 else SHARDING[:1]:
        memory = training_memory(setting, sharding, processes)
        numbers = (*vars(memory).values(), memory.total)
        lines.append(f"| {sharding} | " + " | ".join(f"{n / GIB:.2f}" for n in numbers) + " |")
    return "\n".join(lines)
