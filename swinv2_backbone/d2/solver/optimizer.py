"""Parameter groups and the optimizer.

Weight decay is 0 for norms, biases and embeddings by default, and always for ``logit_scale``, the
position bias MLP and SimMIM's mask token.
(Detectron2's overrides compare only the last component of a name, so ``cpb_mlp`` would never
match.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from swinv2_backbone.backbone import SwinV2

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
BIASES = ("bias", "q_bias", "v_bias")
NEVER_DECAYED = ("logit_scale", "mask_token")
PARAMETRIZATIONS = "parametrizations"  # of torch.nn.utils.parametrize


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build AdamW or SGD over the groups of :func:`parameter_groups`, from ``cfg.SOLVER``."""
    solver, groups = cfg.SOLVER, parameter_groups(model, **group_options(cfg))
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(
            groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    return torch.optim.AdamW(groups, lr=solver.BASE_LR, fused=can_fuse(model) or None)


def can_fuse(model: nn.Module) -> bool:
    """Return True if AdamW can update all parameters in one pass over memory."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return all(
        parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda", "meta")
        for parameter in parameters
    )


def group_options(cfg: CfgNode) -> dict[str, Any]:
    """Read the arguments of :func:`parameter_groups` from ``cfg.SOLVER``, also of another project.

    ``BACKBONE_MULTIPLIER`` means the same as ``BACKBONE_LR_FACTOR``.

    Raises:
        ValueError: they contradict each other.
    """
    solver = cfg.SOLVER
    factors = [solver.get(key, 1.0) for key in ("BACKBONE_LR_FACTOR", "BACKBONE_MULTIPLIER")]
    factors = list({factor for factor in factors if factor != 1.0})
    if len(factors) > 1:
        raise ValueError(
            f"SOLVER.BACKBONE_LR_FACTOR {solver.BACKBONE_LR_FACTOR} and "
            f"SOLVER.BACKBONE_MULTIPLIER {solver.BACKBONE_MULTIPLIER} mean the same: set one to 1.0"
        )
    return {
        "lr": solver.BASE_LR,
        "weight_decay": solver.WEIGHT_DECAY,
        "weight_decay_norm": solver.WEIGHT_DECAY_NORM,
        "weight_decay_bias": solver.WEIGHT_DECAY_BIAS,
        "weight_decay_embed": solver.get("WEIGHT_DECAY_EMBED", 0.0),
        "bias_lr_factor": solver.BIAS_LR_FACTOR,
        "backbone_lr_factor": factors[0] if factors else 1.0,
        "layer_decay": solver.get("LAYER_DECAY", 1.0),
    }


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float = 0.0,
    weight_decay_bias: float | None = 0.0,
    weight_decay_embed: float = 0.0,
    bias_lr_factor: float = 1.0,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict]:
    """Group the trainable parameters of any model by learning rate and weight decay.

    Weight decay is always 0 for ``logit_scale`` and the position bias MLP of a SwinV2.  Each group
    also has the full ``names`` of its parameters, in the same order.  Any optimizer takes them::

        torch.optim.AdamW(parameter_groups(model, lr=1e-4, weight_decay=0.05))
        torch.optim.AdamW(parameter_groups(model, **group_options(cfg)))

    Args:
        lr: learning rate of the heads' weights.
        weight_decay: weight decay of weights.
        weight_decay_norm: weight decay of the parameters of norms.
        weight_decay_bias: weight decay of biases; None: the same as for weights.
        weight_decay_embed: weight decay of embeddings (``nn.Embedding``), such as queries.
        bias_lr_factor: multiplies the learning rate of biases.
        backbone_lr_factor, layer_decay: of the SwinV2; see :func:`learning_rate_scales`.

    Raises:
        ValueError: one of the last two is given for a model without a SwinV2.
    """
    scales = learning_rate_scales(model, backbone_lr_factor, layer_decay)
    if not scales and (backbone_lr_factor, layer_decay) != (1.0, 1.0):
        raise ValueError(
            f"backbone_lr_factor {backbone_lr_factor} and layer_decay {layer_decay} scale the "
            f"learning rate of a SwinV2, but the {type(model).__name__} has none: leave both 1.0"
        )
    decays = {
        "weight": weight_decay,
        "norm": weight_decay_norm,
        "bias": weight_decay if weight_decay_bias is None else weight_decay_bias,
        "embedding": weight_decay_embed,
    }
    groups: dict[tuple[float, float], dict] = {}
    for name, module, parameter in _trainable(model):
        kind = _kind(name, module)
        own_lr, decay = lr * scales.get(name, 1.0), decays.get(kind, 0.0)
        if kind == "bias":
            own_lr *= bias_lr_factor
        group = groups.setdefault(
            (own_lr, decay), {"params": [], "names": [], "lr": own_lr, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def learning_rate_scales(model: nn.Module, factor: float, decay: float) -> dict[str, float]:
    """Return the learning rate factor of every backbone parameter, by its full name.

    It is ``factor * decay ** (layers above it)``.  The layers are the patch embedding, the blocks,
    and the output norms together on top.  Patch merging belongs to the first block of its stage.
    """
    scales = {}
    for prefix, backbone in model.named_modules():
        if isinstance(backbone, SwinV2):
            depths = [len(stage.blocks) for stage in backbone.layers]
            for name, _ in backbone.named_parameters():
                above = sum(depths) + 1 - _height(name, depths)
                scales[f"{prefix}.{name}" if prefix else name] = factor * decay**above
    return scales


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield each trainable parameter once, with its full name and its module.

    The module of a parametrized tensor is the one that has the parametrization.
    """
    seen: set[nn.Parameter] = set()
    modules = dict(model.named_modules())
    for prefix, module in modules.items():
        for last, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                owner = prefix.partition(f".{PARAMETRIZATIONS}.")[0]
                yield f"{prefix}.{last}" if prefix else last, modules[owner], parameter


def _kind(name: str, module: nn.Module) -> str:
    """Return "weight", "norm", "bias", "embedding", or "never decayed"."""
    *path, last = name.split(".")
    if PARAMETRIZATIONS in path:  # layer.parametrizations.weight.original -> layer.weight
        last = path[path.index(PARAMETRIZATIONS) + 1]
    last = last.removesuffix("_orig")  # of torch.nn.utils.prune
    if last in NEVER_DECAYED or "cpb_mlp" in path:
        return "never decayed"
    if isinstance(module, NORMS) or type(module).__name__ == "LayerNorm":  # Detectron2's own class
        return "norm"
    if isinstance(module, EMBEDDINGS):
        return "embedding"
    return "bias" if last in BIASES else "weight"


def _height(name: str, depths: Sequence[int]) -> int:
    """Return a parameter's layer: 0 for the patch embedding, then the blocks, then output norms."""
    kind, *rest = name.split(".")
    if kind == "norms":
        return sum(depths) + 1
    if kind != "layers":
        return 0
    stage, part, *inner = rest
    block = int(inner[0]) if part == "blocks" else 0
    return sum(depths[: int(stage)]) + block + 1
