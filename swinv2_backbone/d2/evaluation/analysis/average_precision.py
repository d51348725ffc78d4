"""Average precision as pycocotools computes it: by class and by size of the object."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swinv2_backbone.d2.evaluation.analysis.detections import Detections

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# Where a metric is in COCOeval's precision: which IoU thresholds, which range of areas.
EVERY = slice(None)
PLACES = ((EVERY, 0), (0, 0), (5, 0), (EVERY, 1), (EVERY, 2), (EVERY, 3))


def evaluate(detections: Detections, task: str) -> COCOeval:
    """COCO's evaluation of "bbox" or "segm", accumulated and summarised."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(detections.truth, _results(detections, task), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def average_precisions(evaluation: COCOeval, detections: Detections) -> dict:
    """The table of an evaluation, in percent; NaN where there is no such object in the truth.

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
    """pycocotools marks what cannot be computed by -1."""
    return 100 * float(value) if value > -1 else float("nan")


def _of_class(evaluation: COCOeval, place: int) -> list[float]:
    precision = evaluation.eval["precision"][:, :, place, :, -1]  # (IoUs, recalls, areas)
    return [percent(precision[ious, :, area].mean()) for ious, area in PLACES]


def _results(detections: Detections, task: str) -> COCO:
    """The detections as pycocotools wants them; it writes into what it is given."""
    found = [dict(one) for one in detections.found]
    if not found:  # loadRes looks at the first
        nothing = COCO()
        nothing.dataset = {**detections.truth.dataset, "annotations": []}
        nothing.createIndex()
        return nothing
    if task == "segm":
        for one in found:
            del one["bbox"]  # so that the size of a detection is that of its mask
    return detections.truth.loadRes(found)


def precision_curves(evaluation: COCOeval, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision over recall at one of COCO's IoU thresholds.

    Returns:
        (R,) recalls, and (R, K) precisions; NaN for a class without objects.
    """
    threshold = int(np.argmin(np.abs(evaluation.params.iouThrs - iou)))
    precision = evaluation.eval["precision"][threshold, :, :, 0, -1]
    return evaluation.params.recThrs, np.where(precision > -1, precision, np.nan)
