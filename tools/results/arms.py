"""Named changes of one config, in groups whose members are compared for the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode

from results.backbones import use_resnet, use_swin_v1, use_swinv2
from results.screening import PLAIN, SMALL_DATA, change_to, design
from results.sets import PublicSet

Change = Callable[[CfgNode, PublicSet], None]


@dataclass(frozen=True)
class Arm:
    """One training: ``change(cfg, set)`` of the set's config.

    Attributes:
        pretrained: True if it starts from a SwinV2 that was trained without labels (SimMIM) on the
            set's own training images; otherwise the weights are random.
    """

    change: Change
    pretrained: bool = False


def _backbones() -> dict[str, Arm]:
    window8 = lambda cfg, own: use_swinv2(cfg, 8)  # noqa: E731
    return {
        "ResNet-50": Arm(lambda cfg, own: use_resnet(cfg)),
        "Swin V1, window 7": Arm(lambda cfg, own: use_swin_v1(cfg)),
        "SwinV2, window 8": Arm(window8),
        "SwinV2, window 16": Arm(lambda cfg, own: use_swinv2(cfg, 16)),
        "SwinV2, window 8, SimMIM": Arm(window8, pretrained=True),
    }


def _screening() -> dict[str, Arm]:
    return {run.title: Arm(run.change, run.pretrained) for run in design()}


def _recipes() -> dict[str, Arm]:
    """SwinV2 with the settings of ``mask_rcnn_swinv2``, and of ``mask_rcnn_swinv2_small_data``."""
    return {"plain": Arm(change_to(PLAIN)), "small data": Arm(change_to(SMALL_DATA))}


BACKBONES, SCREENING, RECIPES = "backbones", "screening", "recipes"
GROUPS: dict[str, dict[str, Arm]] = {
    BACKBONES: _backbones(),
    SCREENING: _screening(),
    RECIPES: _recipes(),
}


def group_of(arm: str) -> str:
    """Return the name of the group that has an arm."""
    return next(name for name, arms in GROUPS.items() if arm in arms)
