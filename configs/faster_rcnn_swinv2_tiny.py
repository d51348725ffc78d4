"""Faster R-CNN with SwinV2-T under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/faster_rcnn_swinv2_tiny.py --num-gpus 8

Recipe: untrained. The one of mask_rcnn_swinv2, without masks.

Published: nothing that we know of with Faster R-CNN; box AP 46.0 by Microsoft's Swin V1-T with Mask
R-CNN.
"""

from .mask_rcnn_swinv2 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

for part in ("mask_in_features", "mask_pooler", "mask_head"):
    del model.roi_heads[part]
dataloader.train.mapper.use_instance_mask = False
