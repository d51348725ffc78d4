"""A small Mask R-CNN with a small SwinV2, from scratch, on the generated demo dataset (`make demo`
makes it, then trains this from YAML):

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2_demo.py

Recipe: untrained. Ours, for minutes on a CPU.

Published: nothing.
"""

from .common.demo import demo_objects, small_swinv2
from .common.schedule import cosine
from .mask_rcnn_swinv2 import dataloader, model, optimizer, train

model.backbone.bottom_up.update(small_swinv2())
model.backbone.out_channels = 64
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [96], [192]]
model.proposal_generator.update(
    batch_size_per_image=128, pre_nms_topk=[400, 300], post_nms_topk=[200, 100]
)
model.roi_heads.update(num_classes=5, batch_size_per_image=64)
model.roi_heads.box_head.fc_dims = [256, 256]
model.roi_heads.mask_head.conv_dims = [64, 64, 64]

datasets = demo_objects(mask_format="bitmask")
dataloader.train.dataset.names = "demo_train"
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[128], max_size=192)
dataloader.train.update(total_batch_size=4, num_workers=0)
dataloader.test.dataset.names = "demo_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=128, max_size=192)

optimizer.params.lr = 1e-3
train.update(output_dir="output/demo", init_checkpoint="", max_iter=900, eval_period=0, seed=1)
train.amp.enabled = False
train.checkpointer = dict(period=300)
lr_multiplier = cosine(train.max_iter, warmup_iters=50)
