"""The parts of Mask R-CNN's ``roi_heads`` that a cascade of three box heads replaces."""

from __future__ import annotations

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
)
from omegaconf import DictConfig

cascade = dict(
    _target_=CascadeROIHeads,
    box_heads=[
        L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${.....backbone.out_channels}", height=7, width=7),
            conv_dims=[256, 256, 256, 256],
            fc_dims=[1024],
            conv_norm="SyncBN",
        )
        for _ in range(3)
    ],
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=f"${{....box_heads[{stage}].fc_dims[0]}}"),
            box2box_transform=L(Box2BoxTransform)(weights=weights),
            num_classes="${...num_classes}",
            test_score_thresh=0.05,
            cls_agnostic_bbox_reg=True,
            box_reg_loss_type="giou",
            loss_weight=dict(loss_box_reg=10.0),
        )
        for stage, weights in enumerate(
            ([10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0])
        )
    ],
    proposal_matchers=[
        L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)
        for iou in (0.5, 0.6, 0.7)
    ],
)


def make_cascade(roi_heads: DictConfig) -> None:
    """Turn ``roi_heads`` of a Mask R-CNN config into those of a Cascade Mask R-CNN, in place."""
    for part in ("box_head", "box_predictor", "proposal_matcher"):
        del roi_heads[part]
    roi_heads.update(cascade)
