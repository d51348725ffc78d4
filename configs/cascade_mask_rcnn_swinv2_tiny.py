"""Cascade Mask R-CNN with SwinV2-T under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/cascade_mask_rcnn_swinv2_tiny.py --num-gpus 8

Recipe: paper. Table of window transfer in the SwinV2 paper: from window 8 to window 16, short sides
of 480 to 800 pixels, AdamW 1e-4, weight decay 0.05, batch 16, 3x. It does not say the rest. Filled
in as in Swin V1's Cascade Mask R-CNN: drop path 0.2, steps at epochs 27 and 33, box heads of four
convolutions and one linear layer with SyncBN and a GIoU loss of weight 10; ours: one learning rate
for backbone and heads, 1000 iterations of warm-up, gradients clipped at 1.

Published: box AP 51.1 at window 16; 51.8 at window 32 (MODEL.SWINV2.WINDOW_SIZE 32, or
model.backbone.bottom_up.window_size=32). Microsoft's Swin V1-T: box AP 50.4, mask AP 43.7.
"""

from .common.cascade import make_cascade
from .common.coco import dataloader  # noqa: F401
from .common.fpn import backbone
from .common.mask_rcnn import model
from .common.optimizer import optimizer  # noqa: F401
from .common.schedule import steps
from .common.train import train

model.backbone = backbone
make_cascade(model.roi_heads)
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.max_iter = 266400  # 36 epochs of 118k images
train.eval_period = 7400  # one epoch
lr_multiplier = steps(train.max_iter, milestones=[199800, 244200])  # epochs 27 and 33
