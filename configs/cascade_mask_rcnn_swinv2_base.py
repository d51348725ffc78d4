"""Cascade Mask R-CNN with SwinV2-B under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/cascade_mask_rcnn_swinv2_base.py --num-gpus 8

Recipe: derived. The one of cascade_mask_rcnn_swinv2_tiny, with the drop path of Swin V1-B (0.3).
Weights of ImageNet-22k, pre-trained at window 12 (which normalizes the position bias), used at
window 16 as the smaller models are.

Published: box AP 51.9, mask AP 45.0 by Microsoft's Swin V1-B from ImageNet-1k; 53.9 and 46.2 by
Detectron2's Swin V1-B from ImageNet-22k, with large-scale jitter and 50 epochs.
"""

from .cascade_mask_rcnn_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.variant = "swinv2_base_window12_192"
model.backbone.bottom_up.drop_path_rate = 0.3
train.init_checkpoint = "swinv2://swinv2_base_window12_192"
