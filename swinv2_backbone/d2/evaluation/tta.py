"""Test-time augmentation: predictions averaged over sizes and flips of an image."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPN,
    SemanticSegmentor,
)
from fvcore.transforms import HFlipTransform
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from swinv2_backbone.d2.data.loading.resizing import transformed

SUPPORTED = "GeneralizedRCNN (boxes and masks) and SemanticSegmentor"


class Versions(DatasetMapperTTA):
    """Detectron2's augmented versions of an image; images of bands are resized as in training."""

    def __call__(self, dataset_dict: dict) -> list[dict]:
        versions = super().__call__(dataset_dict)
        if dataset_dict["image"].is_floating_point():
            pixels = dataset_dict["image"].permute(1, 2, 0).numpy()
            for version in versions:
                _, *transforms = version["transforms"].transforms  # the first makes the image
                resized = transformed(T.TransformList(transforms), pixels)
                version["image"] = torch.from_numpy(resized.transpose(2, 0, 1).copy())
        return versions


class SemanticSegmentorWithTTA(nn.Module):
    """A ``SemanticSegmentor`` whose class logits are averaged over sizes and flips.

    Args:
        model: the model, which is not copied.
        min_sizes: shorter sides in pixels.
        max_size: limit of the longer side.
        flip: add a horizontally flipped version of each size.
    """

    def __init__(
        self, model: SemanticSegmentor, min_sizes: Sequence[int], max_size: int, flip: bool
    ):
        super().__init__()
        self.model = model
        self.versions = Versions(min_sizes, max_size, flip)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Return ``sem_seg`` (K, height, width) of each image, as ``SemanticSegmentor`` does."""
        return [{"sem_seg": self._average(one)} for one in batched_inputs]

    def _average(self, one: dict) -> Tensor:
        height, width = one["image"].shape[-2:]
        versions = self.versions({"height": height, "width": width, **one})
        # One by one, since their sizes differ; the model resizes its output to height and width.
        first, *others = versions
        total = self._logits(first)
        for version in others:
            total = total + self._logits(version)
        return total / len(versions)

    def _logits(self, version: dict) -> Tensor:
        logits = self.model([version])[0]["sem_seg"]
        flipped = any(isinstance(t, HFlipTransform) for t in version["transforms"].transforms)
        return logits.flip(-1) if flipped else logits


def with_augmentation(
    model: nn.Module, min_sizes: Sequence[int], max_size: int, flip: bool
) -> nn.Module:
    """Wrap a model in test-time augmentation; the result takes images at their original size.

    Raises:
        ValueError: this kind of model is not supported.
    """
    model = model.module if isinstance(model, DistributedDataParallel) else model
    if isinstance(model, SemanticSegmentor):
        return SemanticSegmentorWithTTA(model, min_sizes, max_size, flip)
    if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN):
        raise ValueError(
            f"test-time augmentation (TEST.AUG) is for {SUPPORTED}, not for {type(model).__name__}"
        )
    mapper = Versions(min_sizes, max_size, flip)
    return GeneralizedRCNNWithTTA(_settings_of(model), model, mapper)


def _settings_of(model: GeneralizedRCNN) -> CfgNode:
    """Return a config, read from the model, with the settings of Detectron2's augmentation."""
    cfg, heads = get_cfg(), model.roi_heads
    predictor = heads.box_predictor
    last = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # of a cascade
    cfg.MODEL.MASK_ON = getattr(heads, "mask_on", False)
    cfg.MODEL.KEYPOINT_ON = getattr(heads, "keypoint_on", False)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = heads.num_classes
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = last.test_nms_thresh
    cfg.TEST.DETECTIONS_PER_IMAGE = last.test_topk_per_image
    return cfg
