"""Semantic FPN (the semantic half of Panoptic FPN) with SwinV2-T on ADE20K (tools/prepare_ade20k.py
makes its labels):

tools/lazyconfig_train_net.py --config-file configs/semantic_fpn_swinv2_tiny_ade20k.py --num-gpus 8

Recipe: untrained. Data as in upernet_swinv2_tiny_ade20k; 80k iterations of batch 16, AdamW 1e-4,
weight decay 1e-4, a decay of power 0.9 and drop path 0.2, as papers with other backbones use for
this head.

Published: nothing that we know of with this head and SwinV2.
"""

from .common.fpn import backbone
from .common.schedule import polynomial
from .common.semantic_fpn import sem_seg_head
from .upernet_swinv2_tiny_ade20k import dataloader, model, optimizer, train  # noqa: F401

model.backbone = backbone
model.sem_seg_head = sem_seg_head
model.sem_seg_head.num_classes = 150
optimizer.params.update(lr=1e-4, weight_decay=1e-4, layer_decay=1.0)
train.max_iter = 80000
train.eval_period = 8000
lr_multiplier = polynomial(train.max_iter, power=0.9)
