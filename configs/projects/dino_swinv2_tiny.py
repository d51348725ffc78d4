"""DINO of detrex with SwinV2-T, on COCO 2017 (in the folder $DETECTRON2_DATASETS):

tools/lazyconfig_train_net.py --config-file configs/projects/dino_swinv2_tiny.py --num-gpus 8

Recipe: derived. detrex' own for Swin V1-T: 12 epochs, AdamW 1e-4 with a tenth of it for the
backbone, weight decay 1e-4, drop path 0.1, gradients clipped at 0.1; half of the images are
cropped. Ours: window 16 on a model pre-trained at window 8.

Published: box AP 51.3 by DINO with Swin V1-T.
"""

import copy

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler
from projects.dino.configs.models import dino_r50

from swinv2_backbone.d2 import D2SwinV2, feature_shapes

from ..common.coco import dataloader
from ..common.optimizer import optimizer
from ..common.train import train

model = copy.deepcopy(dino_r50.model)  # the module's own stays as it is
model.backbone = L(D2SwinV2)(
    variant="swinv2_tiny_window8_256",  # so the pretrained window is 8
    window_size=16,
    drop_path_rate=0.1,
    out_features=["res3", "res4", "res5"],
)
model.neck.input_shapes = L(feature_shapes)(variant="${...backbone.variant}")
model.device = "${train.device}"

_crop = L(T.AugmentationList)(
    augs=[
        L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
        L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
    ]
)
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations.insert(0, L(T.RandomApply)(tfm_or_aug=_crop, prob=0.5))

optimizer.params.weight_decay = 1e-4
optimizer.params.backbone_lr_factor = 0.1
train.init_checkpoint = "swinv2://swinv2_tiny_window8_256"
train.amp.enabled = False
train.clip.value = 0.1
train.max_iter = 90000  # 12 epochs of 118k images
train.eval_period = 5000
lr_multiplier = L(MultiStepParamScheduler)(
    values=[1.0, 0.1], milestones=[82500], num_updates=train.max_iter
)
