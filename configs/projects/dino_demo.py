"""A small DINO of detrex with a small SwinV2, from scratch, on the generated demo dataset
(docs/PROJECTS.md, also for a machine without a GPU):

tools/lazyconfig_train_net.py --config-file configs/projects/dino_demo.py

Recipe: untrained. Ours, for minutes on a CPU.

Published: nothing.
"""

from detectron2.config import LazyCall as L

from swinv2_backbone.d2 import register_coco

from ..common.schedule import cosine
from .dino_swinv2_tiny import dataloader, model, optimizer, train

model.backbone.update(
    variant=None,
    embed_dim=32,
    depths=[2, 2, 2, 2],
    num_heads=[1, 2, 4, 8],
    window_size=8,
    drop_path_rate=0.0,
)
model.neck.input_shapes = dict(_target_=model.neck.input_shapes._target_, embed_dim=32)
model.transformer.encoder.update(feedforward_dim=256, num_layers=2)  # 256 channels are fixed
model.transformer.decoder.update(feedforward_dim=256, num_layers=2)
model.update(num_classes=5, num_queries=30, dn_number=10)
model.select_box_nums_for_evaluation = 100

datasets = {
    split: L(register_coco)(
        name=f"demo_{folder}",
        json_file=f"datasets/demo/{folder}.json",
        images=f"datasets/demo/{folder}",
        masks=False,
        output_dir="${train.output_dir}",
        for_evaluation=split == "test",
    )
    for split, folder in (("train", "train"), ("test", "val"))
}
dataloader.train.dataset.names = "demo_train"
dataloader.train.mapper.augmentations.pop(0)  # objects are few
dataloader.train.mapper.augmentations[0].update(short_edge_length=[96], max_size=144)
dataloader.train.update(total_batch_size=2, num_workers=0)
dataloader.test.dataset.names = "demo_val"
dataloader.test.mapper.augmentations[0].update(short_edge_length=96, max_size=144)

optimizer.params.update(lr=1e-3, backbone_lr_factor=1.0)
train.update(output_dir="output/dino", init_checkpoint="", max_iter=200, eval_period=0, seed=1)
train.device = "cpu"
train.checkpointer = dict(period=100)
lr_multiplier = cosine(train.max_iter, warmup_iters=10)
