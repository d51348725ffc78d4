"""Cascade Mask R-CNN with SwinV2-L under an FPN, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/cascade_mask_rcnn_swinv2_large.py --num-gpus 8

Recipe: derived. Detectron2's for Swin V1-L: large-scale jitter of 1024 pixels, 50 epochs of batch
64, AdamW 4e-5, weight decay 0.05, drop path 0.4. Ours: window 32 (the weights are of ImageNet-22k
at window 12), 250 iterations of warm-up, gradients clipped at 1, and the heads of
cascade_mask_rcnn_swinv2_tiny.

Published: box AP 55.0, mask AP 47.2 by Detectron2's Swin V1-L. (The SwinV2 paper's L has another
detector, HTC++: 58.8 and 51.1.)
"""

from .cascade_mask_rcnn_swinv2_tiny import dataloader, model, optimizer, train
from .common.large_scale_jitter import large_scale_jitter
from .common.schedule import steps

model.backbone.bottom_up.update(
    variant="swinv2_large_window12_192",
    window_size=32,
    drop_path_rate=0.4,
    activation_checkpointing=True,
)
dataloader.train.mapper.augmentations = large_scale_jitter(1024)
dataloader.train.mapper.recompute_boxes = True
dataloader.train.total_batch_size = 64
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
optimizer.params.lr = 4e-5
train.init_checkpoint = "swinv2://swinv2_large_window12_192"
train.max_iter = 92187  # 50 epochs
train.eval_period = 9220  # five epochs
lr_multiplier = steps(train.max_iter, milestones=[81944, 88773], warmup_iters=250)
