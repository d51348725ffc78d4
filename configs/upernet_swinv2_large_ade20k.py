"""UPerNet with SwinV2-L on ADE20K (tools/prepare_ade20k.py makes its labels):

tools/lazyconfig_train_net.py --config-file configs/upernet_swinv2_large_ade20k.py --num-gpus 8

Recipe: paper. AdamW 6e-5, weight decay 0.05, drop path 0.3, batch 64, 40k iterations falling
linearly after 375 of warm-up, crops of 640 pixels, window 40 on a model pre-trained with
ImageNet-22k at window 12. It names no layer-wise decay, so there is none. The rest is as in
upernet_swinv2_tiny_ade20k.

Published: mIoU 55.9 multi-scale (TEST.AUG.ENABLED True, or train.test_aug.enabled=True). Swin V1-L:
53.5.
"""

from .common.ade20k import ade20k
from .common.schedule import polynomial
from .upernet_swinv2_tiny_ade20k import model, optimizer, train

model.backbone.update(
    variant="swinv2_large_window12_192", window_size=40, activation_checkpointing=True
)
dataloader = ade20k(size=640)
dataloader["train"].total_batch_size = 64
optimizer.params.update(lr=6e-5, layer_decay=1.0)
train.init_checkpoint = "swinv2://swinv2_large_window12_192"
train.max_iter = 40000
train.eval_period = 4000
train.test_aug.update(min_sizes=[320, 480, 640, 800, 960, 1120], max_size=4480)
lr_multiplier = polynomial(train.max_iter, warmup_iters=375)
