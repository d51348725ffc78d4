"""A small MaskTransformer with a small SwinV2, from scratch, on the generated demo dataset
(tools/make_demo_dataset.py makes it):

tools/lazyconfig_train_net.py --config-file configs/mask_transformer_swinv2_demo.py

Recipe: untrained. Ours, for half an hour on a CPU.

Published: nothing.
"""

from .common.coco import dataloader
from .common.demo import demo_objects, small_swinv2
from .common.mask_transformer import model
from .common.optimizer import optimizer
from .common.schedule import cosine
from .common.train import train

model.backbone.update(small_swinv2())
model.update(num_classes=5, num_queries=20, channels=64, num_heads=4)
model.update(encoder_layers=2, decoder_layers=3, points=1024)

datasets = demo_objects(mask_format="bitmask")
dataloader.train.dataset.names = "demo_train"
dataloader.train.mapper.update(instance_mask_format="bitmask", mask_targets="instance")
dataloader.train.mapper.augmentations[0].update(short_edge_length=[128], max_size=192)
dataloader.train.update(total_batch_size=4, num_workers=0)
dataloader.test.dataset.names = "demo_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=128, max_size=192)

optimizer.params.lr = 1e-3
train.update(
    output_dir="output/demo_mask_transformer",
    init_checkpoint="",
    max_iter=1500,
    eval_period=0,
    seed=1,
)
train.amp.enabled = False
train.checkpointer = dict(period=500)
lr_multiplier = cosine(train.max_iter, warmup_iters=50)
