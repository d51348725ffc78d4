"""MaskTransformer with SwinV2-T, instance segmentation on COCO 2017 (in $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/mask_transformer_swinv2_tiny.py --num-gpus 8

Recipe: derived. Mask2Former's for Swin V1-T: 50 epochs of large-scale jitter at 1024 pixels, AdamW
1e-4 (backbone 1e-5), weight decay 0.05, drop path 0.3, at window 16 on a model pre-trained at
window 8.

Published: mask AP 45.0 by Mask2Former with Swin V1-T.
"""

from .common.coco import dataloader
from .common.large_scale_jitter import large_scale_jitter
from .common.mask_transformer import model  # noqa: F401
from .common.optimizer import optimizer
from .common.schedule import steps
from .common.train import train

dataloader.train.mapper.update(
    augmentations=large_scale_jitter(1024), recompute_boxes=True, mask_targets="instance"
)
optimizer.params.backbone_lr_factor = 0.1
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.max_iter = 368750  # 50 epochs of 118k images
train.eval_period = 7400  # one epoch
train.clip.value = 0.01
lr_multiplier = steps(train.max_iter, milestones=[327778, 355092], warmup_iters=10)
