"""ADE20K: 150 classes, crops of images scaled by 0.5 to 2."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader

from swinv2_backbone.d2 import (
    ColorAugmentation,
    DatasetMapper,
    build_evaluator,
    build_train_loader,
    get_records,
)


def ade20k(size: int) -> dict:
    """The loaders and the evaluator for crops of ``size`` x ``size`` pixels."""
    return dict(
        train=L(build_train_loader)(
            dataset=L(get_records)(names="ade20k_sem_seg_train"),
            mapper=L(DatasetMapper)(
                is_train=True,
                augmentations=[
                    L(T.ResizeShortestEdge)(
                        short_edge_length=[size * tenths // 10 for tenths in range(5, 21)],
                        max_size=4 * size,
                        sample_style="choice",
                    ),
                    L(T.RandomCrop_CategoryAreaConstraint)(
                        crop_type="absolute",
                        crop_size=[size, size],
                        single_category_max_area=0.75,
                        ignored_category=255,
                    ),
                    L(ColorAugmentation)(image_format="RGB"),
                    L(T.RandomFlip)(),
                ],
                image_format="RGB",
            ),
            total_batch_size=16,
            num_workers=4,
        ),
        test=L(build_detection_test_loader)(
            dataset=L(get_records)(names="ade20k_sem_seg_val", filter_empty=False),
            mapper=L(DatasetMapper)(
                is_train=False,
                augmentations=[
                    L(T.ResizeShortestEdge)(
                        short_edge_length=size, max_size=4 * size, sample_style="choice"
                    )
                ],
                image_format="${...train.mapper.image_format}",
            ),
            num_workers="${..train.num_workers}",
        ),
        evaluator=L(build_evaluator)(
            dataset_name="${..test.dataset.names}", output_folder="${train.output_dir}/inference"
        ),
    )
