"""DINO of detrex with SwinV2-L, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/projects/dino_swinv2_large.py --num-gpus 8

Recipe: derived. The one of dino_swinv2_tiny; detrex' own for Swin V1-L differs from it in the
backbone alone. Weights of ImageNet-22k, pre-trained at window 12.

Published: box AP 56.9 by DINO with Swin V1-L, pre-trained on ImageNet-22k at 384 pixels.
"""

from .dino_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.variant = "swinv2_large_window12_192"
model.backbone.activation_checkpointing = True
train.init_checkpoint = "swinv2://swinv2_large_window12_192"
