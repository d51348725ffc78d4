"""What the demo dataset says about a drawn scene: instances, semantic labels, panoptic segments.

Shapes: H, W are the height and width of one image. Masks are (H, W) bool, label maps (H, W).
"""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.demo.scene import CATEGORIES, Instance, Scene

MIN_POLYGON_IOU = 0.95
CLASSES = ("background", *CATEGORIES.values())  # in the order of the semantic labels
BACKGROUND_ID = 1  # category id of the background, which only panoptic files have


def _trace_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outlines of a mask as COCO polygons [x0, y0, x1, y1, ...]; None if it has holes.

    Contours run through pixel centres, COCO polygons along pixel edges. Traced on a mask
    enlarged four times they are within 1/8 pixel of the edges, which small objects need.
    """
    enlarged = mask.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    contours, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():  # a contour with a parent is the edge of a hole
        return None
    return [((contour.reshape(-1) + 0.5) / 4).tolist() for contour in contours]


def _encode_segmentation(instance: Instance) -> list[list[float]] | dict:
    """COCO polygons where allowed and faithful to the mask, else compressed RLE."""
    rle = coco_mask.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
    polygons = None if instance.as_rle else _trace_polygons(instance.mask)
    if polygons is not None:
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *instance.mask.shape))
        if coco_mask.iou([merged], [rle], [0])[0, 0] >= MIN_POLYGON_IOU:
            return polygons
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _box(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] of the pixels that are set."""
    ys, xs = np.nonzero(mask)
    x, y = int(xs.min()), int(ys.min())
    return [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1]


def annotate(instance: Instance, annotation_id: int, image_id: int) -> dict:
    """The COCO annotation of an instance; bbox is [x, y, width, height], area is in pixels."""
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
    """(H, W) uint8: the index in CLASSES of what shows at each pixel; crowds have their class."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = CLASSES.index(CATEGORIES[instance.category_id])
    return labels


def draw_stuff(scene: Scene) -> np.ndarray:
    """(H, W) uint8 as Detectron2's Panoptic FPN is trained: 0 for any thing, 1 for background."""
    return (draw_labels(scene) == 0).astype(np.uint8)


def draw_panoptic(scene: Scene) -> tuple[np.ndarray, list[dict]]:
    """The segment ids at each pixel, (H, W) int64, and COCO's ``segments_info`` about them.

    Ids are unique within the image. The background is a segment like the others; no pixel is 0,
    which in COCO's format means unlabelled.
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


def panoptic_colours(ids: np.ndarray) -> np.ndarray:
    """Ids (H, W) as the RGB colours that COCO stores: (H, W, 3) uint8, id = R + 256 G + 65536 B."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
