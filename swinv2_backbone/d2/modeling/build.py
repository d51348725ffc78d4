"""Models of Detectron2, adapted: true sizes of images for the backbone, faster ROIAlign."""

from __future__ import annotations

from collections.abc import Callable

from detectron2 import modeling
from detectron2.config import CfgNode
from torch import nn

from swinv2_backbone.d2.modeling.backbone import D2SwinV2, zero_is_a_pixel
from swinv2_backbone.d2.modeling.image_sizes import can_hand_over_sizes, hand_over_sizes
from swinv2_backbone.d2.modeling.roi_align import with_native_roi_align
from swinv2_backbone.d2.modeling.trainer_keys import obeyed

OF_A_PROJECT = "(--import package.module:function, or imports=, adds the code of another project)"


def build_model(
    cfg: CfgNode, build: Callable[[CfgNode], nn.Module] = modeling.build_model
) -> nn.Module:
    """Build a model as Detectron2's ``build_model`` does, and adapt it; see :func:`adapted`.

    Args:
        build: the function that builds it.

    Raises:
        ValueError: ``cfg`` names a part that is in none of Detectron2's registries.
    """
    with obeyed():
        try:
            return adapted(build(cfg))
        except KeyError as error:
            if "registry" not in str(error):
                raise
            raise ValueError(f"{error.args[0]} {OF_A_PROJECT}") from error


def adapted(model: nn.Module) -> nn.Module:
    """Apply :func:`with_true_sizes` and :func:`with_native_roi_align`; return the model."""
    return with_true_sizes(with_native_roi_align(model))


def with_true_sizes(model: nn.Module) -> nn.Module:
    """Pass the true sizes of the images to the backbone of a model, and return the model.

    Detectron2's meta-architectures, and subclasses that batch images as they do, attach the sizes
    to each batch. Any other model is left as it is: its SwinV2 takes zeros for padding.

    Raises:
        ValueError: the SwinV2 of such a model would take pixels for padding.
    """
    if can_hand_over_sizes(type(model)):
        hand_over_sizes(model)
        return model
    masked = any(isinstance(part, D2SwinV2) and part.mask_padding for part in model.modules())
    mean = getattr(model, "pixel_mean", None)
    if masked and mean is not None and (fault := zero_is_a_pixel(mean.flatten().tolist())):
        raise ValueError(fault)
    return model
