"""UPerNet with SwinV2-S on ADE20K (tools/prepare_ade20k.py makes its labels):

tools/lazyconfig_train_net.py --config-file configs/upernet_swinv2_small_ade20k.py --num-gpus 8

Recipe: derived. The one of upernet_swinv2_tiny_ade20k, as Swin V1's is the same for T and S.

Published: mIoU 47.6 by Microsoft's Swin V1-S, single-scale.
"""

from .upernet_swinv2_tiny_ade20k import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.variant = "swinv2_small_window8_256"
train.init_checkpoint = "swinv2://swinv2_small_window8_256"
