"""The mapper from a dataset's record to a model's input: read, augmented, checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2 import data
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from swinv2_backbone.d2.data.loading.bands import BANDS, bands_of, read_pixels
from swinv2_backbone.d2.data.loading.images import read_labels
from swinv2_backbone.d2.data.loading.mask_targets import (
    INSTANCE,
    PANOPTIC,
    SEMANTIC,
    instance_targets,
    panoptic_targets,
    require_field,
    semantic_targets,
)
from swinv2_backbone.d2.data.loading.resizing import BandsInput


class DatasetMapper(data.DatasetMapper):
    """Detectron2's DatasetMapper, with images and labels of any format read correctly.

    Detectron2's own clips 16-bit images and reads the brightness of a palette image as its class
    numbers. It is built like Detectron2's, also from a config, and has the same arguments, except:

    Args:
        image_format: "RGB", "BGR" or "BANDS"; see :func:`read_bands`.
        bands: the number of bands that images must have in the format "BANDS"; None: any.
        mask_targets: "instance", "semantic" or "panoptic" for a mask classification model, such as
            Mask2Former: ``instances`` then has a mask for each object, class or segment (see
            :mod:`swinv2_backbone.d2.data.loading.mask_targets`). "none": Detectron2's targets.
        ignore_value: label that is no class, for "semantic".
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: Sequence[int] | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
        bands: int | None = None,
        mask_targets: str = "none",
        ignore_value: int = 255,
    ):
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            use_instance_mask=use_instance_mask,
            use_keypoint=use_keypoint,
            instance_mask_format=instance_mask_format,
            keypoint_hflip_indices=keypoint_hflip_indices,
            precomputed_proposal_topk=precomputed_proposal_topk,
            recompute_boxes=recompute_boxes,
        )
        if mask_targets == INSTANCE and not use_instance_mask:
            raise ValueError(
                "mask targets of objects (INPUT.MASK_TARGETS instance) need their masks: set "
                "MODEL.MASK_ON True (use_instance_mask=True of DatasetMapper)"
            )
        self.bands = bands
        self.mask_targets = mask_targets if is_train else "none"
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        options = super().from_config(cfg, is_train)
        cropped = is_train and (cfg.INPUT.LSJ.ENABLED or cfg.INPUT.CROP.ENABLED)
        return options | {
            "augmentations": augmentations_from_config(cfg, is_train),
            # A cropped mask may have a smaller box than the cropped box.
            "recompute_boxes": cropped and cfg.MODEL.MASK_ON,
            "bands": bands_of(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN),
            "mask_targets": cfg.INPUT.MASK_TARGETS,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        }

    def __call__(self, record: dict) -> dict:
        """Map a record of a Detectron2 dataset to a model's input.

        Returns:
            The record with ``image`` (3, H, W) uint8, or (n, H, W) float32 of bands, and, where the
            record has them, ``sem_seg`` (H, W) int64 and ``instances``.

        Raises:
            OSError: the image cannot be read.
            detectron2.data.detection_utils.SizeMismatchError: its size differs from the record's.
            ValueError: the record lacks what the mask targets are made from.
        """
        record = copy.deepcopy(record)
        if self.mask_targets != "none":
            require_field(record, self.mask_targets)
        image = read_pixels(record["file_name"], self.image_format, self.bands)
        detection_utils.check_image_size(record, image)
        labels = record.pop("sem_seg_file_name", None)
        kind = BandsInput if self.image_format == BANDS else T.AugInput
        inputs = kind(image, sem_seg=None if labels is None else _labels(labels))
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        record["image"] = _tensor(inputs.image.transpose(2, 0, 1))
        if labels is not None:
            record["sem_seg"] = _tensor(inputs.sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(
                record, size, transforms, proposal_topk=self.proposal_topk
            )
        if not self.is_train or self.mask_targets in (SEMANTIC, PANOPTIC):
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, size)
        if self.mask_targets != "none":
            record["instances"] = self._mask_targets(record, transforms)
        return record

    def _mask_targets(self, record: dict, transforms: T.TransformList) -> Instances:
        if self.mask_targets == SEMANTIC:
            return semantic_targets(record["sem_seg"], self.ignore_value)
        if self.mask_targets == PANOPTIC:
            colors = read_pixels(record.pop("pan_seg_file_name"), "RGB", None)
            return panoptic_targets(transforms.apply_segmentation(colors), record["segments_info"])
        return instance_targets(record["instances"])

    def _transform_annotations(
        self, record: dict, transforms: T.TransformList, size: tuple[int, int]
    ) -> None:
        if any(not one.get("iscrowd", 0) for one in record["annotations"]):
            super()._transform_annotations(record, transforms, size)
            return
        # Detectron2 omits the masks here, and then fails to compute boxes from them.
        del record["annotations"]
        record["instances"] = self._no_instances(size)

    def _no_instances(self, size: tuple[int, int]) -> Instances:
        empty = Instances(size)
        empty.gt_boxes = Boxes(torch.zeros(0, 4))
        empty.gt_classes = torch.zeros(0, dtype=torch.int64)
        if self.use_instance_mask:
            polygons = self.instance_mask_format == "polygon"
            masks = torch.zeros(0, *size, dtype=torch.bool)
            empty.gt_masks = PolygonMasks([]) if polygons else BitMasks(masks)
        return empty


class ColorAugmentation(T.Augmentation):
    """Random brightness, contrast, saturation and hue, as in SSD and mmsegmentation."""

    def __init__(self, image_format: str):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return ColorAugSSDTransform(self.image_format)


def augmentations_from_config(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Build the augmentations of ``cfg.INPUT``: resizing and crops or jitter, colors, flips.

    A detector crops before it resizes, as in Detectron2; a semantic segmentor after, as in all
    recipes for ADE20K.
    """
    found = detection_utils.build_augmentation(cfg, is_train)  # resize, then possibly flip
    if not is_train:
        return found
    resize, *flips = found
    colors = [ColorAugmentation(cfg.INPUT.FORMAT)] if cfg.INPUT.COLOR_AUG_SSD else []
    return [*_sizing(cfg, resize), *colors, *flips]


def _sizing(cfg: CfgNode, resize: T.Augmentation) -> list[T.Augmentation]:
    """Build the augmentations that change the size: jitter, or ``resize`` and crop."""
    node = cfg.INPUT
    if node.LSJ.ENABLED:
        size = node.LSJ.SIZE
        return [
            T.ResizeScale(node.LSJ.MIN_SCALE, node.LSJ.MAX_SCALE, size, size),
            # Unpadded: the batch is padded later, and that padding is masked out of attention.
            T.FixedSizeCrop((size, size), pad=False),
        ]
    if not node.CROP.ENABLED:
        return [resize]
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" or node.MASK_TARGETS == SEMANTIC:
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        crop = T.RandomCrop_CategoryAreaConstraint(
            node.CROP.TYPE, node.CROP.SIZE, node.CROP.SINGLE_CATEGORY_MAX_AREA, ignored
        )
        return [resize, crop]
    return [T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE), resize]


def _labels(path: str) -> np.ndarray:
    """Read class numbers in a dtype that transforms accept: beyond 8 bits, only floats resize.

    For floats Detectron2 takes the pixel to the upper left, where Pillow takes the nearest: the
    results are half an output pixel apart.
    """
    labels = read_labels(path)
    return labels if labels.dtype == np.uint8 else labels.astype(np.float32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
