"""Mask R-CNN with SwinV2-T under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2.py --num-gpus 8

Recipe: derived. Nobody has published one for SwinV2 and Mask R-CNN; this is the 3x recipe of Swin
V1 (36 epochs, steps at 27 and 33, AdamW 1e-4, weight decay 0.05, drop path 0.2) at window 16 on a
model pre-trained at window 8.

Published: box AP 46.0, mask AP 41.6 by Microsoft's Swin V1-T with that recipe.
"""

from .common.coco import dataloader  # noqa: F401
from .common.fpn import backbone
from .common.mask_rcnn import model
from .common.optimizer import optimizer  # noqa: F401
from .common.schedule import steps
from .common.train import train

model.backbone = backbone
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.max_iter = 266400  # 36 epochs of 118k images
train.eval_period = 7400  # one epoch
lr_multiplier = steps(train.max_iter, milestones=[199800, 244200])  # epochs 27 and 33
