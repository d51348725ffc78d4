"""How a model and its optimizer lie on several processes: whole, or in shards.

- "none": every process has everything (``DistributedDataParallel``).
- "optimizer": the state of the optimizer is divided among the processes (ZeRO stage 1,
  ``torch.distributed.optim.ZeroRedundancyOptimizer``).
- "all": weights and gradients, too; each block is gathered when it is computed (FSDP2,
  ``torch.distributed.fsdp.fully_shard``).

Checkpoints are the same for all of them: ordinary files, gathered by
``torch.distributed.checkpoint``, from which a training goes on in any other way.
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

SHARDING = ("none", "optimizer", "all")


def check_sharding(
    sharding: str, *, averaged: bool, float16: bool, key: str, average_key: str
) -> None:
    """Raise ValueError for a way of sharding that is unknown, or not possible here.

    Args:
        averaged: an average of the weights is kept.
        float16: it is trained in float16, whose gradients are scaled.
        key, average_key: what the user calls these settings.
    """
    if sharding not in SHARDING:
        raise ValueError(f"{key} must be one of {', '.join(SHARDING)}, got {sharding!r}")
    if sharding == "all" and averaged:
        raise ValueError(
            f'{key} "all" keeps no average of the weights: switch {average_key} off, or set '
            f'{key} "optimizer"'
        )
    if sharding == "all" and float16:
        raise ValueError(f'{key} "all" does not scale gradients: take bfloat16, or no sharding')
    if sharding != "none" and comm.get_world_size() == 1:
        raise ValueError(f'{key} {sharding!r} needs several processes: set it to "none"')


def shard_model(model: nn.Module, sharding: str) -> None:
    """Before the optimizer is built: divide the weights among the processes, if so wanted.

    Raises:
        ValueError: several processes on the CPU of a machine with GPUs.
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

    for tensor in model.state_dict(keep_vars=True).values():  # each process drew its own
        dist.broadcast(tensor.data, 0)
    mesh = init_device_mesh(device, (comm.get_world_size(),))
    for part in model.modules():
        if isinstance(part, SwinV2Block):
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard_optimizer(optimizer: torch.optim.Optimizer, sharding: str) -> torch.optim.Optimizer:
    """The optimizer, or one like it that keeps a part of the state."""
    if sharding != "optimizer":
        return optimizer
    from torch.distributed.optim import ZeroRedundancyOptimizer

    accepted = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    return ZeroRedundancyOptimizer(
        optimizer.param_groups, optimizer_class=type(optimizer), **options
    )


def parallel_model(model: nn.Module, sharding: str, **ddp: Any) -> nn.Module:
    """What is called in training; ``ddp``: options of ``DistributedDataParallel``."""
    if sharding == "all":
        return model
    on_cpu = next(model.parameters()).device.type == "cpu"
    device_ids = None if on_cpu else [comm.get_local_rank()]
    return create_ddp_model(model, device_ids=device_ids, **ddp)


@contextlib.contextmanager
def synchronise_gradients(model: nn.Module, now: bool) -> Iterator[None]:
    """Whether a backward inside exchanges gradients between processes."""
    if isinstance(model, DistributedDataParallel):
        with contextlib.nullcontext() if now else model.no_sync():
            yield
    else:
        if hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(now)
        yield


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, a sharded model lies whole in every process.

    Else an evaluation would end in a hang, as processes have different numbers of images.
    """
    parts = [part for part in model.modules() if is_sharded(part)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state dict; of a sharded model in the main process, called by all at once."""
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return get_model_state_dict(model, options=_whole())


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole state, as of an optimizer without shards, in the main process.

    Called by all processes at once.
    """
    if hasattr(optimizer, "consolidate_state_dict"):
        optimizer.consolidate_state_dict(to=0)
        whole = optimizer.state_dict() if comm.is_main_process() else {}
        optimizer._all_state_dicts = []  # which it would keep, in the main process
        return whole
    if not is_sharded(model):
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    named = get_optimizer_state_dict(model, optimizer, options=_whole())
    return _numbered(named) if comm.is_main_process() else {}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Take over what :func:`optimizer_state` gave, sharded as it may be now."""
    if not is_sharded(model):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    set_optimizer_state_dict(
        model, optimizer, _named(state, model, optimizer), options=_whole(cpu_offload=False)
    )


def _whole(cpu_offload: bool = True):
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=cpu_offload)


def _numbered(named: dict[str, Any]) -> dict[str, Any]:
    """Parameters by number, as in PyTorch's own state of an optimizer, instead of by name."""
    names = [name for group in named["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    return {
        "state": {numbers[name]: state for name, state in named["state"].items()},
        "param_groups": [
            {**group, "params": [numbers[name] for name in group["params"]]}
            for group in named["param_groups"]
        ],
    }


def _named(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The inverse of :func:`_numbered`."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    names = [name_of[p] for group in optimizer.param_groups for p in group["params"]]
    return {
        "state": {names[number]: own for number, own in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[number] for number in group["params"]]}
            for group in state["param_groups"]
        ],
    }
