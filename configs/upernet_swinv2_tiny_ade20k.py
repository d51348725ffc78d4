"""UPerNet with SwinV2-T on ADE20K (tools/prepare_ade20k.py makes its labels):

tools/lazyconfig_train_net.py --config-file configs/upernet_swinv2_tiny_ade20k.py --num-gpus 8

Recipe: paper. AdamW 4e-5, weight decay 0.05, layer-wise decay 0.95, drop path 0.3, batch 16, 160k
iterations falling linearly after 1500 of warm-up, crops of 512 pixels, at window 16 on a model
pre-trained at window 8. Scales, colors and the head are those of Swin V1 in mmsegmentation.

Published: mIoU 47.0 at window 16; 47.8 at window 32 (MODEL.SWINV2.WINDOW_SIZE 32, or
model.backbone.window_size=32). Microsoft's Swin V1-T: 44.5, single-scale. For multi-scale testing:
TEST.AUG.ENABLED True, or train.test_aug.enabled=True.
"""

from .common.ade20k import ade20k
from .common.optimizer import optimizer
from .common.schedule import polynomial
from .common.train import train
from .common.upernet import model  # noqa: F401

dataloader = ade20k(size=512)
optimizer.params.update(lr=4e-5, layer_decay=0.95)
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.max_iter = 160000
train.eval_period = 16000
train.clip = None
train.test_aug = dict(min_sizes=[256, 384, 512, 640, 768, 896], max_size=3584)
lr_multiplier = polynomial(train.max_iter)
