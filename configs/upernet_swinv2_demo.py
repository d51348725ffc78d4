"""A small UPerNet with a small SwinV2, from scratch, on the generated demo dataset (`make
demo-semantic` makes it, then trains this from YAML):

tools/lazyconfig_train_net.py --config-file configs/upernet_swinv2_demo.py

Recipe: untrained. Ours, for minutes on a CPU.

Published: nothing.
"""

from detectron2.config import LazyCall as L

from swinv2_backbone.d2 import register_semantic

from .common.schedule import cosine
from .upernet_swinv2_tiny_ade20k import dataloader, model, optimizer, train

model.backbone.update(
    variant=None,
    embed_dim=32,
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    window_size=8,
    drop_path_rate=0.0,
)
model.sem_seg_head.update(
    num_classes=6, channels=48, norm="BN", dropout=0.0, aux_channels=32, aux_loss_weight=1.0
)

datasets = {
    split: L(register_semantic)(
        name=f"demo_semantic_{folder}",
        images=f"datasets/demo/{folder}",
        labels=f"datasets/demo/{folder}_labels",
        names_file="datasets/demo/classes.txt",
        for_evaluation=split == "test",
    )
    for split, folder in (("train", "train"), ("test", "val"))
}
dataloader.train.dataset.names = "demo_semantic_train"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[112], max_size=192)
del dataloader.train.mapper.augmentations[1:3]  # the crop and the colors
dataloader.train.update(total_batch_size=6, num_workers=0)
dataloader.test.dataset.names = "demo_semantic_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=112, max_size=192)

optimizer.params.update(lr=6e-3, layer_decay=1.0)
train.update(
    output_dir="output/demo_semantic", init_checkpoint="", max_iter=2000, eval_period=0, seed=1
)
train.amp.enabled = False
train.ema = dict(enabled=True, decay=0.998)
train.clip = dict(kind="full_model", value=1.0, norm_type=2.0)
train.checkpointer = dict(period=500)
train.test_aug = dict(enabled=True, min_sizes=[96, 112, 128], max_size=192)
lr_multiplier = cosine(train.max_iter, warmup_iters=100)
