"""Checks of datasets before a training: every fault is found, and reported with its remedy."""

from swinv2_backbone.d2.data.validation.ade20k import check_ade20k
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.report import Fault, Report
from swinv2_backbone.d2.data.validation.semantic import check_semantic

__all__ = ["Fault", "Report", "check_ade20k", "check_coco", "check_semantic"]
