"""Training targets of mask classification: a mask and a class for each part of an image.

Mask2Former, MaskDINO and other set-prediction heads predict masks with classes for every task. They
are trained on the same Instances for all of them: an entry is an object, a semantic class that the
image has, or a panoptic segment.

Shapes: N entries, H, W the height and width of the augmented image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from torch import Tensor

INSTANCE, SEMANTIC, PANOPTIC = TASKS = ("instance", "semantic", "panoptic")
FIELDS = {  # task -> the field of a dataset's record that its targets are made from
    INSTANCE: "annotations",
    SEMANTIC: "sem_seg_file_name",
    PANOPTIC: "pan_seg_file_name",
}


def require_field(record: dict, task: str) -> None:
    """Raise ValueError if a record lacks what the targets of a task are made from."""
    if FIELDS[task] not in record:
        raise ValueError(
            f"mask targets of the task {task!r} (INPUT.MASK_TARGETS) are made from "
            f"{FIELDS[task]!r}, which the record of {record['file_name']} does not have"
        )


def instance_targets(instances: Instances) -> Instances:
    """Return the targets of annotated objects, whose masks are polygons or bitmaps."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    return mask_targets(instances.gt_classes, masks.tensor)


def semantic_targets(labels: Tensor, ignored: int) -> Instances:
    """Return the targets of a label map (H, W): one for each class but ``ignored``."""
    classes = labels.unique()
    classes = classes[classes != ignored]
    return mask_targets(classes, labels == classes[:, None, None])


def panoptic_targets(colors: np.ndarray, segments: Sequence[dict[str, Any]]) -> Instances:
    """Return the targets of COCO's panoptic colors (H, W, 3): one for each segment but crowds.

    Args:
        segments: the record's ``segments_info``, with contiguous ``category_id``.
    """
    ids = torch.from_numpy(colors.astype(np.int64)) @ torch.tensor([1, 256, 65536])
    known = [segment for segment in segments if not segment.get("iscrowd", 0)]
    classes, numbers = (
        torch.tensor([segment[key] for segment in known], dtype=torch.int64)
        for key in ("category_id", "id")
    )
    return mask_targets(classes, ids == numbers[:, None, None])


def mask_targets(classes: Tensor, masks: Tensor) -> Instances:
    """Return Instances of classes (N,) and masks (N, H, W); entries without a pixel are left out.

    Its ``gt_masks`` is a tensor, unlike in Detectron2, and ``gt_boxes`` bound the masks.
    """
    seen = masks.flatten(1).any(dim=1)
    targets = Instances(tuple(masks.shape[-2:]))
    targets.gt_classes = classes[seen]
    targets.gt_masks = masks[seen]
    targets.gt_boxes = BitMasks(targets.gt_masks).get_bounding_boxes()
    return targets
