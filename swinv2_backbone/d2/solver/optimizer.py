"""Parameter groups, optimizer and learning-rate schedule, from the config.

Weight decay is 0 for norms, biases, ``logit_scale``, the position-bias MLP and SimMIM's mask token.
(Detectron2's own overrides compare only the last component of a name, so that ``cpb_mlp`` never
matches there.)
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from fvcore.common.param_scheduler import PolynomialDecayParamScheduler
from torch import nn

from swinv2_backbone.backbone import SwinV2

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over the groups of :func:`parameter_groups`, as ``cfg.SOLVER`` says."""
    solver = cfg.SOLVER
    decay = solver.WEIGHT_DECAY
    groups = parameter_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=decay,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        # None, in Detectron2: as weights
        weight_decay_bias=decay if solver.WEIGHT_DECAY_BIAS is None else solver.WEIGHT_DECAY_BIAS,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        backbone_lr_factor=solver.BACKBONE_LR_FACTOR,
        layer_decay=solver.LAYER_DECAY,
    )
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(
            groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    return torch.optim.AdamW(groups, lr=solver.BASE_LR)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float = 0.0,
    weight_decay_bias: float = 0.0,
    bias_lr_factor: float = 1.0,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict]:
    """The trainable parameters, grouped by learning rate and weight decay.

    Each group also has the full ``names`` of its parameters, in their order.

    Args:
        lr, weight_decay: of the heads' weights.
        weight_decay_norm, weight_decay_bias: of the parameters of norms, and of biases.
        bias_lr_factor: what multiplies the learning rate of biases.
        backbone_lr_factor, layer_decay: see :func:`learning_rate_scales`.
    """
    scales = learning_rate_scales(model, backbone_lr_factor, layer_decay)
    groups: dict[tuple[float, float], dict] = {}
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for last, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            name = f"{prefix}.{last}" if prefix else last
            own_lr, decay = lr * scales.get(name, 1.0), weight_decay
            if last in ("logit_scale", "mask_token") or "cpb_mlp" in prefix.split("."):
                decay = 0.0
            elif isinstance(module, NORMS) or type(module).__name__ == "LayerNorm":  # Detectron2's
                decay = weight_decay_norm
            elif last in ("bias", "q_bias", "v_bias"):
                decay = weight_decay_bias
                own_lr *= bias_lr_factor
            group = groups.setdefault(
                (own_lr, decay), {"params": [], "names": [], "lr": own_lr, "weight_decay": decay}
            )
            group["params"].append(parameter)
            group["names"].append(name)
    return list(groups.values())


def learning_rate_scales(model: nn.Module, factor: float, decay: float) -> dict[str, float]:
    """Full name of every backbone parameter -> what multiplies the learning rate.

    ``factor * decay ** (blocks above it)``: the patch embedding lies under all blocks, a merging
    beside the first block of its stage, an output norm above the last.
    """
    scales = {}
    for prefix, backbone in model.named_modules():
        if not isinstance(backbone, SwinV2):
            continue
        first = [
            sum(len(stage.blocks) for stage in backbone.layers[:i])
            for i in range(len(backbone.layers) + 1)
        ]
        for name, _ in backbone.named_parameters():
            parts = name.split(".")
            height = 0  # of the patch embedding; a block's is its number from 1
            if parts[0] == "norms":
                height = first[-1] + 1
            elif parts[0] == "layers":
                block = int(parts[3]) if parts[2] == "blocks" else 0
                height = first[int(parts[1])] + block + 1
            full = f"{prefix}.{name}" if prefix else name
            scales[full] = factor * decay ** (first[-1] + 1 - height)
    return scales


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Warm-up, then steps, cosine (Detectron2's own) or polynomial decay."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_detectron2_lr_scheduler(cfg, optimizer)
    schedule = WarmupParamScheduler(
        PolynomialDecayParamScheduler(1.0, solver.POLY_POWER),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)
