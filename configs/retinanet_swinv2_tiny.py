"""RetinaNet with SwinV2-T under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/retinanet_swinv2_tiny.py --num-gpus 8

Recipe: derived. Detectron2's RetinaNet and its 1x schedule (short sides of 640 to 800 pixels), with
the optimizer of mask_rcnn_swinv2 (AdamW 1e-4, weight decay 0.05, drop path 0.2), at window 16 on a
model pre-trained at window 8.

Published: box AP 44.8 by a public Detectron2 project with SwinV2-T, window 16 from 8, at 1x.
"""

from .common.coco import dataloader
from .common.optimizer import optimizer  # noqa: F401
from .common.retinanet import model  # noqa: F401
from .common.schedule import steps
from .common.train import train

dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations[0].short_edge_length = list(range(640, 801, 32))
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.max_iter = 90000  # 12 epochs of 118k images
train.eval_period = 7400  # one epoch
lr_multiplier = steps(train.max_iter, milestones=[60000, 80000])
