"""The full state of a model and its optimizer, gathered from several processes.

Checkpoints are ordinary files however the state is sharded, so that a run can resume with any
other sharding.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.d2.engine.parallel import is_sharded


def model_state(model: nn.Module) -> dict[str, Any]:
    """Return the full state dict; all processes must call this.

    For a sharded model, only the main process gets it.
    """
    if not is_sharded(model):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return get_model_state_dict(model, options=_whole())


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the full state in the format of an ordinary optimizer; all processes must call this.

    For a sharded optimizer, only the main process gets it.
    """
    if hasattr(optimizer, "consolidate_state_dict"):
        return _consolidated(optimizer)
    if not is_sharded(model):
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    named = get_optimizer_state_dict(model, optimizer, options=_whole())
    return _numbered(named) if comm.is_main_process() else {}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Load a state from :func:`optimizer_state`, however the optimizer is sharded now."""
    if not is_sharded(model):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    set_optimizer_state_dict(
        model, optimizer, _named(state, model, optimizer), options=_whole(cpu_offload=False)
    )


def _whole(cpu_offload: bool = True) -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=cpu_offload)


def _consolidated(optimizer: Any) -> dict[str, Any]:
    """Return the full state of a ``ZeroRedundancyOptimizer``."""
    optimizer.consolidate_state_dict(to=0)
    state = optimizer.state_dict() if comm.is_main_process() else {}
    optimizer._all_state_dicts = []  # otherwise the main process would keep all shards
    return state


def _numbered(named: dict[str, Any]) -> dict[str, Any]:
    """Replace names of parameters by numbers, as in the state of an ordinary optimizer."""
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
    """Invert :func:`_numbered`."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    names = [name_of[p] for group in optimizer.param_groups for p in group["params"]]
    return {
        "state": {names[number]: own for number, own in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[number] for number in group["params"]]}
            for group in state["param_groups"]
        ],
    }
