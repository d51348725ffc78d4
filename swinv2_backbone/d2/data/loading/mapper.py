"""A dataset's record -> what a model takes: read, augmented, checked."""

from __future__ import annotations

import copy

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2 import data
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.projects.point_rend import ColorAugSSDTransform

from swinv2_backbone.d2.data.loading.images import read_image, read_labels


class DatasetMapper(data.DatasetMapper):
    """Detectron2's, with images and labels of any kind read right.

    (Detectron2's own clips 16-bit images, and takes the brightness of a palette image for its class
    numbers.)  Arguments, and ``DatasetMapper(cfg, is_train)``, are as Detectron2's.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        options = super().from_config(cfg, is_train)
        cropped = is_train and (cfg.INPUT.LSJ.ENABLED or cfg.INPUT.CROP.ENABLED)
        return options | {
            "augmentations": augmentations_from_config(cfg, is_train),
            # What a crop leaves of an object has a smaller box than what it leaves of the box.
            "recompute_boxes": cropped and cfg.MODEL.MASK_ON,
        }

    def __call__(self, record: dict) -> dict:
        """A record of a Detectron2 dataset -> the same with ``image`` (3, H, W) uint8 and,
        as the record has them, ``sem_seg`` (H, W) int64 and ``instances``.

        Raises:
            OSError: the image cannot be read.
            detectron2.data.detection_utils.SizeMismatchError: it is not as the record says.
        """
        record = copy.deepcopy(record)
        image = read_image(record["file_name"], self.image_format)
        detection_utils.check_image_size(record, image)
        labels = record.pop("sem_seg_file_name", None)
        inputs = T.AugInput(image, sem_seg=None if labels is None else _labels(labels))
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        record["image"] = _tensor(inputs.image.transpose(2, 0, 1))
        if labels is not None:
            record["sem_seg"] = _tensor(inputs.sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(
                record, size, transforms, proposal_topk=self.proposal_topk
            )
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, size)
        return record


class ColorAugmentation(T.Augmentation):
    """Brightness, contrast, saturation and hue at random, as SSD and mmsegmentation vary them."""

    def __init__(self, image_format: str):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return ColorAugSSDTransform(self.image_format)


def augmentations_from_config(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """What ``cfg.INPUT`` says: resizing and crops, or large-scale jitter; colours; flips.

    A detector crops before it resizes, as Detectron2 does; a semantic segmentor after, as all
    recipes for ADE20K do.
    """
    found = detection_utils.build_augmentation(cfg, is_train)  # resize, then perhaps flip
    if not is_train:
        return found
    (resize, *flips), node = found, cfg.INPUT
    sizing = [resize]
    if node.LSJ.ENABLED:
        size = node.LSJ.SIZE
        sizing = [
            T.ResizeScale(node.LSJ.MIN_SCALE, node.LSJ.MAX_SCALE, size, size),
            # Not padded: padding is the batch's matter, and is not attended there.
            T.FixedSizeCrop((size, size), pad=False),
        ]
    elif node.CROP.ENABLED and cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        crop = T.RandomCrop_CategoryAreaConstraint(
            node.CROP.TYPE, node.CROP.SIZE, node.CROP.SINGLE_CATEGORY_MAX_AREA, ignored
        )
        sizing = [resize, crop]
    elif node.CROP.ENABLED:
        sizing = [T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE), resize]
    colours = [ColorAugmentation(node.FORMAT)] if node.COLOR_AUG_SSD else []
    return [*sizing, *colours, *flips]


def _labels(path: str) -> np.ndarray:
    """Class numbers in a type that transforms take: beyond 8 bit, only floats are resized.

    (Detectron2 then takes the pixel to the left and above, where Pillow takes the nearest: half a
    pixel of the result apart.)
    """
    labels = read_labels(path)
    return labels if labels.dtype == np.uint8 else labels.astype(np.float32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
