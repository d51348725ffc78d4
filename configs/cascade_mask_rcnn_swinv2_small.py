"""Cascade Mask R-CNN with SwinV2-S under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/cascade_mask_rcnn_swinv2_small.py --num-gpus 8

Recipe: derived. The one of cascade_mask_rcnn_swinv2_tiny, as Swin V1's is the same for T and S.

Published: box AP 51.9, mask AP 45.0 by Microsoft's Swin V1-S.
"""

from .cascade_mask_rcnn_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_small_window8_256"
train.init_checkpoint = "swinv2://swinv2_small_window8_256"
