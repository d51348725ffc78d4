"""Evaluators that compute the metrics of the public benchmarks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from tabulate import tabulate

from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.d2.evaluation.metrics import BOXES, tasks_of
from swinv2_backbone.d2.evaluation.whole_files import whole_files

logger = logging.getLogger(__name__)
COCO_DETECTIONS = 100  # per image and class, counted by COCO's AP
LVIS_DETECTIONS = 300  # per image
ALL_DETECTIONS = 1_000_000
WHOLE = {  # evaluator_type -> an evaluator that takes only the dataset's name
    "cityscapes_instance": CityscapesInstanceEvaluator,
    "cityscapes_sem_seg": CityscapesSemSegEvaluator,
    "pascal_voc": PascalVOCDetectionEvaluator,
}


class WholeFiles(DatasetEvaluator):
    """An evaluator whose files exist whole or not at all; mixed into Detectron2's."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict | None:
        with whole_files():
            return super().evaluate(*args, **kwargs)


class PanopticEvaluator(WholeFiles, COCOPanopticEvaluator):
    """A COCOPanopticEvaluator whose predictions.json exists whole or not at all."""


class LvisEvaluator(WholeFiles, LVISEvaluator):
    """An LVISEvaluator whose files exist whole or not at all."""


class DetectionEvaluator(WholeFiles, COCOEvaluator):
    """A COCOEvaluator that reports an AP of 0 for boxes and masks if the model detects nothing.

    Detectron2's evaluator reports NaN for boxes and nothing for masks, so that an early evaluation
    lacks keys that a later one has.
    """

    def reset(self) -> None:
        super().reset()
        self._has_masks = False

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        found = [output["instances"] for output in outputs if "instances" in output]
        self._has_masks |= any(instances.has("pred_masks") for instances in found)
        super().process(inputs, outputs)

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        # Detectron2 looks for masks in the detections, of which there may be none.
        masks = {"segm"} if self._has_masks else set()
        return sorted({*super()._tasks_from_predictions(predictions), *masks})

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict:
        if coco_eval is not None:
            return super()._derive_coco_results(coco_eval, iou_type, class_names)
        names = class_names or ()
        classes = [f"AP-{name}" for name in names] if len(names) > 1 else []
        return dict.fromkeys((*BOXES, *classes), 0.0)


class SemanticEvaluator(WholeFiles, SemSegEvaluator):
    """A SemSegEvaluator that computes mIoU as Detectron2 0.6 and mmsegmentation do.

    A class that is predicted but absent from the ground truth counts as 0, also in its own IoU.
    Detectron2 0.6 reports it as NaN, like a class that is neither true nor predicted, and its main
    branch leaves it out of the mean.
    """

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        if results is not None:  # on the main process, which has gathered the matrix
            matrix = self._conf_matrix[:-1, :-1].astype(float)  # (predicted, true)
            right, true, predicted = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
            union = true + predicted - right
            scores = results["sem_seg"]
            scores["mIoU"] = 100 * (right[union > 0] / union[union > 0]).mean()
            for place in np.flatnonzero((true == 0) & (predicted > 0)):
                scores[f"IoU-{self._class_names[place]}"] = 0.0
            if self._output_dir:
                with durable(Path(self._output_dir, "sem_seg_evaluation.pth")) as file:
                    torch.save(scores, file)
            logger.info(f"IoU of each class:\n{self._table(scores, true, predicted)}")
        return results

    def _table(self, scores: dict, true: np.ndarray, predicted: np.ndarray) -> str:
        """Format the scores of all classes with their shares of the pixels, in percent."""
        total = max(true.sum(), 1)
        rows = [
            [name, scores[f"IoU-{name}"], scores[f"ACC-{name}"], *shares, _presence(*shares)]
            for name, *shares in zip(self._class_names, 100 * true / total, 100 * predicted / total)
        ]
        heads = ["class", "IoU", "accuracy", "% of true pixels", "% of predicted pixels", ""]
        return tabulate(rows, headers=heads, tablefmt="pipe", floatfmt=".3f")


def _presence(true: float, predicted: float) -> str:
    if true:
        return ""
    return "predicted, but not in the ground truth: counts as 0" if predicted else "absent"


def counted_detections(limit: int | None) -> int:
    """Return the number of detections per image and class that AP counts.

    Args:
        limit: most detections that the model returns for an image; negative: all of them; None:
            unknown.
    """
    if limit is not None and limit < 0:
        return ALL_DETECTIONS
    return max(COCO_DETECTIONS, limit or 0)


def build_evaluator(
    dataset_name: str, output_folder: str | None = None, max_dets_per_image: int | None = None
) -> DatasetEvaluator:
    """Build the evaluator that Detectron2's benchmarks use for a dataset's ``evaluator_type``.

    Args:
        max_dets_per_image: most detections that the model returns for an image; negative: all of
            them. Beyond the number that the benchmark counts (COCO: 100, LVIS: 300), AP counts
            this many. Keypoint AP always counts COCO's 20.

    Raises:
        ValueError: the type is unknown, or needs a package that is not installed.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind in WHOLE:
        return WHOLE[kind](dataset_name)
    evaluators = []
    counted = counted_detections(max_dets_per_image)
    most = None if counted == COCO_DETECTIONS else counted
    if most and kind in ("coco", "coco_panoptic_seg"):
        logger.info(
            f"AP counts up to {most} detections per image and class, where COCO's counts "
            f"{COCO_DETECTIONS}"
        )
    if "sem_seg" in tasks_of(dataset_name):
        evaluators.append(SemanticEvaluator(dataset_name, output_dir=output_folder))
    if kind in ("coco", "coco_panoptic_seg"):
        evaluators.append(_detection_evaluator(dataset_name, output_folder, most))
    if kind == "coco_panoptic_seg":
        evaluators.append(PanopticEvaluator(dataset_name, output_folder))
    if kind == "lvis":
        lvis_most = most if counted > LVIS_DETECTIONS else None
        evaluators.append(
            LvisEvaluator(dataset_name, output_dir=output_folder, max_dets_per_image=lvis_most)
        )
    if not evaluators:
        raise ValueError(f"dataset {dataset_name!r} has the unknown evaluator_type {kind!r}")
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _detection_evaluator(name: str, folder: str | None, most: int | None) -> DetectionEvaluator:
    """Build an evaluator; Detectron2 converts a dataset without a COCO file, into the folder."""
    converted = Path(folder or "", f"{name}_coco_format.json")
    if folder and converted.exists() and not hasattr(MetadataCatalog.get(name), "json_file"):
        _remove_damaged(converted)
    with whole_files():
        # The reference implementation of pycocotools, not Detectron2's compiled one.
        return DetectionEvaluator(
            name, output_dir=folder, max_dets_per_image=most, use_fast_impl=False
        )


def _remove_damaged(converted: Path) -> None:
    """Remove a converted dataset that is damaged; Detectron2 would take it as it is."""
    try:
        read_record(converted, "the dataset is converted anew")
    except ValueError as error:
        logger.warning(str(error))
        converted.unlink(missing_ok=True)
