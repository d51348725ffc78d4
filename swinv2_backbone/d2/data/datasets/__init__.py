"""Datasets registered in Detectron2's catalogs, by Python or by the keys of a YAML config."""

from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.datasets.selected import check_datasets, check_same_classes
from swinv2_backbone.d2.data.datasets.semantic import register_semantic

__all__ = [
    "check_datasets",
    "check_same_classes",
    "register_coco",
    "register_custom_datasets",
    "register_semantic",
]
