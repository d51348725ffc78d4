"""COCO 2017: boxes and masks, short sides of 480 to 800 pixels."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader

from swinv2_backbone.d2 import DatasetMapper, build_evaluator, build_train_loader, get_records

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(get_records)(names="coco_2017_train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=list(range(480, 801, 32)),
                    max_size=1333,
                    sample_style="choice",
                ),
                L(T.RandomFlip)(),
            ],
            image_format="RGB",
            use_instance_mask=True,
            instance_mask_format="polygon",
        ),
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_records)(names="coco_2017_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333, sample_style="choice")
            ],
            image_format="${...train.mapper.image_format}",
            use_instance_mask="${...train.mapper.use_instance_mask}",
            instance_mask_format="${...train.mapper.instance_mask_format}",
        ),
        num_workers="${..train.num_workers}",
    ),
    evaluator=L(build_evaluator)(
        dataset_name="${..test.dataset.names}", output_folder="${train.output_dir}/inference"
    ),
)
