"""DINO of detrex with SwinV2-B, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/projects/dino_swinv2_base.py --num-gpus 8

Recipe: derived. The one of dino_swinv2_tiny; detrex' own for Swin V1-B differs from it in the
backbone alone. Weights of ImageNet-22k, pre-trained at window 12.

Published: box AP 55.8 by DINO with Swin V1-B, pre-trained on ImageNet-22k at 384 pixels.
"""

from .dino_swinv2_tiny import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.variant = "swinv2_base_window12_192"
train.init_checkpoint = "swinv2://swinv2_base_window12_192"
