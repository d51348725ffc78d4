"""The Detectron2 plugin.  Importing it registers three backbones in ``BACKBONE_REGISTRY``:

``build_swinv2_backbone``, ``build_swinv2_fpn_backbone`` and
``build_retinanet_swinv2_fpn_backbone``.  Call ``add_swinv2_config(cfg)`` before merging a config
that selects one of them.
"""

from swinv2_backbone.d2.backbone import SwinV2
from swinv2_backbone.d2.config import add_swinv2_config

__all__ = ["SwinV2", "add_swinv2_config"]
