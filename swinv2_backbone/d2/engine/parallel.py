"""A model and its optimizer on several processes: replicated or sharded.

- "none": every process has everything (``DistributedDataParallel``).
- "optimizer": the optimizer state is sharded among the processes (ZeRO stage 1,
  ``torch.distributed.optim.ZeroRedundancyOptimizer``).
- "all": weights and gradients are sharded as well; each block is gathered when it is computed
  (FSDP2, ``torch.distributed.fsdp.fully_shard``).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swinv2_backbone.block import SwinV2Block


def shard_model(model: nn.Module, sharding: str) -> None:
    """Shard the weights among the processes if ``sharding`` is "all".

    Call this before the optimizer is built.

    Raises:
        ValueError: several processes run on the CPU of a machine with GPUs.
    """
    device = next(model.parameters()).device.type
    if device == "cpu" and comm.get_world_size() > 1 and dist.get_backend() == "nccl":
        raise ValueError(
            "several processes on the CPU: hide the GPUs with the environment variable "
            "CUDA_VISIBLE_DEVICES="
        )
    if sharding != "all":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for tensor in model.state_dict(keep_vars=True).values():  # random weights differ
        dist.broadcast(tensor.data, 0)
    mesh = init_device_mesh(device, (comm.get_world_size(),))
    for part in model.modules():
        if isinstance(part, SwinV2Block):
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard_optimizer(optimizer: torch.optim.Optimizer, sharding: str) -> torch.optim.Optimizer:
    """Return the optimizer; for "optimizer", an equivalent one that shards its state."""
    if sharding != "optimizer":
        return optimizer
    from torch.distributed.optim import ZeroRedundancyOptimizer

    accepted = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    return ZeroRedundancyOptimizer(
        optimizer.param_groups, optimizer_class=type(optimizer), **options
    )


def parallel_model(model: nn.Module, sharding: str, **ddp: Any) -> nn.Module:
    """Wrap a model for training.

    Args:
        ddp: keyword arguments of ``DistributedDataParallel``.
    """
    if sharding == "all":
        return model
    on_cpu = next(model.parameters()).device.type == "cpu"
    device_ids = None if on_cpu else [comm.get_local_rank()]
    return create_ddp_model(model, device_ids=device_ids, **ddp)


@contextlib.contextmanager
def synchronize_gradients(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Enable or disable the exchange of gradients between processes in backward passes."""
    if isinstance(model, DistributedDataParallel):
        with contextlib.nullcontext() if enabled else model.no_sync():
            yield
    else:
        if is_sharded(model):
            sharded: Any = model
            sharded.set_requires_gradient_sync(enabled)
        yield


def is_sharded(model: nn.Module) -> bool:
    """Return True if ``fully_shard`` was applied to the module."""
    return hasattr(model, "set_requires_gradient_sync")


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gather a sharded model in every process while the block runs.

    Without this, evaluation would hang, because processes have different numbers of images.
    """
    parts: list[Any] = [part for part in model.modules() if is_sharded(part)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()
