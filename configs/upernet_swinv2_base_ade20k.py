"""UPerNet with SwinV2-B on ADE20K (tools/prepare_ade20k.py makes its labels):

tools/lazyconfig_train_net.py --config-file configs/upernet_swinv2_base_ade20k.py --num-gpus 8

Recipe: derived. The one of upernet_swinv2_tiny_ade20k. Weights of ImageNet-22k, pre-trained at
window 12 (which normalizes the position bias), used at window 16 as the smaller models are.

Published: mIoU 48.1 by Microsoft's Swin V1-B from ImageNet-1k, single-scale.
"""

from .upernet_swinv2_tiny_ade20k import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.variant = "swinv2_base_window12_192"
train.init_checkpoint = "swinv2://swinv2_base_window12_192"
