"""Mask R-CNN with SwinV2-T under an FPN, for a few hundred images of your own:

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2_small_data.py

Give the data with it: DATASETS.CUSTOM.TRAIN.JSON, .IMAGES and .NAME, the same of TEST, and
MODEL.ROI_HEADS.NUM_CLASSES (docs/DATASETS.md); without them it is a short training on COCO.

Recipe: untrained. The one of mask_rcnn_swinv2 at window 8 and 512 pixels, 3000 iterations with a
cosine. docs/RESULTS.md has the experiment that it follows, with smaller models from random weights.

Published: nothing.
"""

from .common.schedule import cosine
from .mask_rcnn_swinv2 import dataloader, model, optimizer, train  # noqa: F401

model.backbone.bottom_up.window_size = 8
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=[416, 448, 480, 512], max_size=864
)
dataloader.test.mapper.augmentations[0].update(short_edge_length=512, max_size=864)
train.update(max_iter=3000, eval_period=300, test_aug=dict(min_sizes=[410, 512, 614]))
lr_multiplier = cosine(train.max_iter, warmup_iters=300)
