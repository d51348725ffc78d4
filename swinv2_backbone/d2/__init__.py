"""The Detectron2 plugin.  Importing it registers, in Detectron2's registries:

- the backbones ``build_swinv2_backbone``, ``build_swinv2_fpn_backbone`` and
  ``build_retinanet_swinv2_fpn_backbone``;
- the head ``UPerNetHead`` for semantic segmentation.

Call ``add_swinv2_config(cfg)`` before merging a config that selects one of them.
"""

from swinv2_backbone.d2.config.yacs import add_swinv2_config
from swinv2_backbone.d2.modeling.backbone import SwinV2
from swinv2_backbone.d2.modeling.upernet import UPerNetHead

__all__ = ["SwinV2", "UPerNetHead", "add_swinv2_config"]
