"""Parts of a suggestion: settings by config key, each with a reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from swinv2_backbone.d2.suggestion.anchors import REACHED, Anchors
from swinv2_backbone.d2.suggestion.objects import ObjectSizes
from swinv2_backbone.d2.suggestion.resolution import QUANTILE, SMALL, Resolution

DETECTIONS = 100  # COCO's maximum for an image


class Reason(NamedTuple):
    """A suggested setting in words, and the reason for it."""

    setting: str
    why: str


Part = tuple[dict[str, Any], Reason]


def has_masks(objects: ObjectSizes) -> bool:
    return objects.masks == len(objects)


def model_part(recipe: str, objects: ObjectSizes, why: str) -> Part:
    """Return the head that the annotations are enough for, and the number of classes."""
    settings: dict[str, Any] = {"MODEL.ROI_HEADS.NUM_CLASSES": len(objects.names)}
    what = "Mask R-CNN"
    if not has_masks(objects):
        settings["MODEL.MASK_ON"] = False
        missing = len(objects) - objects.masks
        what = f"Faster R-CNN (MODEL.MASK_ON False), as {missing} objects have no mask"
    elif objects.rle:
        settings["INPUT.MASK_FORMAT"] = "bitmask"
        what += " with bitmasks, as some masks are RLE"
    return settings, Reason(f"{recipe}: {what}", why)


def images_part(found: Resolution) -> Part:
    """Return the sizes of images."""
    settings = {
        "INPUT.MIN_SIZE_TRAIN": found.short_edges,
        "INPUT.MAX_SIZE_TRAIN": found.longest,
        "INPUT.MIN_SIZE_TEST": found.short,
        "INPUT.MAX_SIZE_TEST": found.longest,
    }
    why = (
        f"{100 - 100 * QUANTILE:.0f} % of the objects are then at least {found.small:.0f} pixels "
        f"wide (square root of the area); {SMALL:.0f} are aimed at"
    )
    if not found.sees_small:
        why += (
            ". To see smaller objects, train on crops (INPUT.CROP) and predict with `--tile` "
            "(docs/TUNING.md)"
        )
    return settings, Reason(f"images of {found.short} pixels, at most {found.longest}", why)


def anchors_part(found: Anchors, keep_default: bool = True) -> Part:
    """Return the anchors; ``keep_default``: the recipe has Detectron2's default anchors."""
    reached = f"{100 * found.reached:.1f} % of the objects have an anchor with IoU {REACHED}"
    if found.are_default and keep_default:
        return {}, Reason("the recipe's anchors", f"{reached}, and others reach no more")
    settings = {
        "MODEL.ANCHOR_GENERATOR.SIZES": [[size] for size in found.sizes],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(found.ratios)],
    }
    words = f"anchors of {', '.join(map(str, found.sizes))} pixels, height / width "
    words += ", ".join(f"{ratio:g}" for ratio in found.ratios)
    if not found.are_default:
        reached += f", {100 * found.default_reached:.1f} % by default"
    return settings, Reason(words, reached)


def detections_part(objects: ObjectSizes) -> Part:
    """Return limits that the image with most objects does not exceed."""
    most = int(objects.per_image.max())
    if most <= DETECTIONS:
        why = f"no image has more than {most} objects"
        return {}, Reason(f"at most {DETECTIONS} detections of an image", why)
    limit = int(-(-most * 1.2 // 50) * 50)
    settings = {
        "TEST.DETECTIONS_PER_IMAGE": limit,
        "MODEL.RPN.POST_NMS_TOPK_TEST": max(1000, 2 * limit),
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": max(1000, 2 * limit),
    }
    return settings, Reason(
        f"at most {limit} detections of an image", f"an image has {most} objects; default: 100"
    )
