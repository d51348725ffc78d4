"""A small DINO of detrex with a small SwinV2, from scratch, on the generated demo dataset
(docs/PROJECTS.md, also for a machine without a GPU):

tools/lazyconfig_train_net.py --config-file configs/projects/dino_demo.py

Recipe: untrained. Ours, for minutes on a CPU.

Published: nothing.
"""

from ..common.demo import demo_objects, small_swinv2
from ..common.schedule import cosine
from .dino_swinv2_tiny import dataloader, model, optimizer, train

model.backbone.update(small_swinv2())
model.neck.input_shapes = dict(_target_=model.neck.input_shapes._target_, embed_dim=32)
model.transformer.encoder.update(feedforward_dim=256, num_layers=2)  # 256 channels are fixed
model.transformer.decoder.update(feedforward_dim=256, num_layers=2)
model.update(num_classes=5, num_queries=30, dn_number=10)
model.select_box_nums_for_evaluation = 100

datasets = demo_objects(masks=False)
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
