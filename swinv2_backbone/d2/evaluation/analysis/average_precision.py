"""Average precision as computed by pycocotools, per class and per object size."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swinv2_backbone.d2.evaluation.analysis.detections import Detections
from swinv2_backbone.d2.evaluation.evaluators import COCO_DETECTIONS

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# The place of each metric in COCOeval's precision: IoU thresholds and range of areas.
EVERY = slice(None)
PLACES = ((EVERY, 0), (0, 0), (5, 0), (EVERY, 1), (EVERY, 2), (EVERY, 3))


def evaluate(detections: Detections, task: str, most: int = COCO_DETECTIONS) -> COCOeval:
    """Run COCO's evaluation of "bbox" or "segm"; the result is accumulated and summarized.

    Args:
        most: detections per image and class to count.
    """
    # COCO's own summary is undefined if fewer or more than 100 are counted.
    kind = COCOeval if most == COCO_DETECTIONS else COCOevalMaxDets
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = kind(detections.truth, _results(detections, task), task)
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def average_precisions(evaluation: COCOeval, detections: Detections) -> dict:
    """Return the metrics of an evaluation in percent; NaN if the ground truth has no such object.

    Returns:
        {"all": {"AP": ..., ..., "APl": ...}, "classes": {name: {"AP": ..., ...}}}
    """
    overall = [percent(value) for value in evaluation.stats[: len(METRICS)]]
    by_class = {}
    for place, category in enumerate(evaluation.params.catIds):
        name = detections.classes[detections.index[category]]
        by_class[name] = dict(zip(METRICS, _of_class(evaluation, place)))
    return {"all": dict(zip(METRICS, overall)), "classes": by_class}


def percent(value: float) -> float:
    """Convert a share to percent; pycocotools' -1, for undefined, becomes NaN."""
    return 100 * float(value) if value > -1 else float("nan")


def _of_class(evaluation: COCOeval, place: int) -> list[float]:
    precision = evaluation.eval["precision"][:, :, place, :, -1]  # (IoUs, recalls, areas)
    return [percent(precision[ious, :, area].mean()) for ious, area in PLACES]


def _results(detections: Detections, task: str) -> COCO:
    """Convert detections for pycocotools; it modifies its input, so they are copied."""
    found = [dict(one) for one in detections.found]
    if not found:  # loadRes fails on an empty list
        nothing = COCO()
        nothing.dataset = {**detections.truth.dataset, "annotations": []}
        nothing.createIndex()
        return nothing
    if task == "segm":
        for one in found:
            del one["bbox"]  # so that the size of a detection is the area of its mask
    return detections.truth.loadRes(found)


def precision_curves(evaluation: COCOeval, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Return precision over recall at one of COCO's IoU thresholds.

    Returns:
        (R,) recalls, and (R, K) precisions, which are NaN for classes without objects.
    """
    threshold = int(np.argmin(np.abs(evaluation.params.iouThrs - iou)))
    precision = evaluation.eval["precision"][threshold, :, :, 0, -1]
    return evaluation.params.recThrs, np.where(precision > -1, precision, np.nan)
