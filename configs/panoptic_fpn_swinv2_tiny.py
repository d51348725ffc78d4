"""Panoptic FPN with SwinV2-T, on COCO 2017 panoptic (prepared as Detectron2 says, in the folder
$DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/panoptic_fpn_swinv2_tiny.py --num-gpus 8

Recipe: untrained. The one of mask_rcnn_swinv2, with the semantic head of Detectron2's Panoptic FPN.

Published: nothing that we know of with Panoptic FPN and Swin, neither V1 nor V2.
"""

from detectron2.modeling import PanopticFPN

from .common.semantic_fpn import sem_seg_head
from .mask_rcnn_swinv2 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model._target_ = PanopticFPN
model.sem_seg_head = sem_seg_head
model.sem_seg_head.loss_weight = 0.5
dataloader.train.dataset.update(names="coco_2017_train_panoptic_separated", filter_empty=False)
dataloader.test.dataset.names = "coco_2017_val_panoptic_separated"
