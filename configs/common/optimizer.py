"""AdamW, without weight decay on norms, biases, ``logit_scale`` and the position-bias MLP."""

import torch
from detectron2.config import LazyCall as L

from swinv2_backbone.d2 import parameter_groups

optimizer = L(torch.optim.AdamW)(
    params=L(parameter_groups)(lr=1e-4, weight_decay=0.05),
    lr="${.params.lr}",
    fused=True,
)
