"""The ground truth of a drawn scene: instances, semantic labels and panoptic segments.

Shapes: H, W are the height and width of one image. Masks are (H, W) bool, label maps (H, W).
"""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.demo.scene import CATEGORIES, Instance, Scene

MIN_POLYGON_IOU = 0.95
CLASSES = ("background", *CATEGORIES.values())  # in the order of the semantic labels
BACKGROUND_ID = 1  # category id of the background, in panoptic files only


def _trace_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Trace the outlines of a mask as COCO polygons [x0, y0, x1, y1, ...]; None if it has holes.

    Contours run through pixel centers, COCO polygons along pixel edges. The mask is enlarged four
    times, so that contours are within 1/8 pixel of the edges, which small objects need.
    """
    enlarged = mask.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    contours, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():  # a contour with a parent is the edge of a hole
        return None
    return [((contour.reshape(-1) + 0.5) / 4).tolist() for contour in contours]


def _encode_segmentation(instance: Instance) -> list[list[float]] | dict:
    """Encode a mask as COCO polygons if these are allowed and accurate, else as RLE."""
    rle = coco_mask.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
    polygons = None if instance.as_rle else _trace_polygons(instance.mask)
    if polygons is not None:
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *instance.mask.shape))
        if coco_mask.iou([merged], [rle], [0])[0, 0] >= MIN_POLYGON_IOU:
            return polygons
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _box(mask: np.ndarray) -> list[int]:
    """Return [x, y, width, height] of the pixels that are set."""
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1]


def annotate(instance: Instance, annotation_id: int, image_id: int) -> dict:
    """Return the COCO annotation of an instance; bbox is [x, y, width, height], in pixels."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": instance.category_id,
        "bbox": _box(instance.mask),
        "area": int(instance.mask.sum()),
        "iscrowd": int(instance.iscrowd),
        "segmentation": _encode_segmentation(instance),
    }


def draw_labels(scene: Scene) -> np.ndarray:
    """Draw each pixel's index in CLASSES, (H, W) uint8; crowds have the class of their shapes."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = CLASSES.index(CATEGORIES[instance.category_id])
    return labels


def draw_stuff(scene: Scene) -> np.ndarray:
    """Draw the labels for Detectron2's Panoptic FPN, (H, W) uint8: 0 for things, 1 for stuff."""
    return (draw_labels(scene) == 0).astype(np.uint8)


def draw_panoptic(scene: Scene) -> tuple[np.ndarray, list[dict]]:
    """Draw each pixel's segment id, (H, W) int64; return it with COCO's ``segments_info``.

    Ids are unique within the image. The background is a segment like the others; no pixel is 0,
    which means unlabeled in COCO's format.
    """
    things = [(i.category_id, i.mask, i.iscrowd) for i in scene.instances]
    background = draw_stuff(scene).astype(bool)
    ids, segments = np.zeros(background.shape, np.int64), []
    for number, (category_id, mask, iscrowd) in enumerate(
        [(BACKGROUND_ID, background, False), *things]
    ):
        if not mask.any():
            continue  # objects may cover the whole background
        ids[mask] = segment_id = 1000 * category_id + number
        segments.append(
            {
                "id": segment_id,
                "category_id": category_id,
                "area": int(mask.sum()),
                "bbox": _box(mask),
                "iscrowd": int(iscrowd),
            }
        )
    return ids, segments


def panoptic_colors(ids: np.ndarray) -> np.ndarray:
    """Convert ids (H, W) to COCO's RGB colors, (H, W, 3) uint8: id = R + 256 G + 65536 B."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
