"""Mask R-CNN with SwinV2-S under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2_small.py --num-gpus 8

Recipe: derived. The one of mask_rcnn_swinv2, which is Swin V1's for T and S alike.

Published: box AP 48.5, mask AP 43.3 by Microsoft's Swin V1-S with Swin V1's recipe.
"""

from .mask_rcnn_swinv2 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_small_window8_256"
train.init_checkpoint = "swinv2://swinv2_small_window8_256"
