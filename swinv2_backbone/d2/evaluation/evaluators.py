"""Evaluators that compute the metrics of the public benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

from swinv2_backbone.d2.evaluation.metrics import BOXES

WHOLE = {  # evaluator_type -> an evaluator that takes only the dataset's name
    "cityscapes_instance": CityscapesInstanceEvaluator,
    "cityscapes_sem_seg": CityscapesSemSegEvaluator,
    "pascal_voc": PascalVOCDetectionEvaluator,
}


class DetectionEvaluator(COCOEvaluator):
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


class SemanticEvaluator(SemSegEvaluator):
    """A SemSegEvaluator that computes mIoU as Detectron2 0.6 and mmsegmentation do.

    A class that is predicted but absent from the ground truth counts as 0. Detectron2's main
    branch leaves such a class out of the mean.
    """

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        if results is not None:  # on the main process, which has gathered the matrix
            matrix = self._conf_matrix[:-1, :-1].astype(float)  # (predicted, true)
            right = matrix.diagonal()
            union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
            results["sem_seg"]["mIoU"] = 100 * (right[union > 0] / union[union > 0]).mean()
        return results


def build_evaluator(dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """Build the evaluator that Detectron2's benchmarks use for a dataset's ``evaluator_type``.

    Raises:
        ValueError: the type is unknown, or needs a package that is not installed.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind in WHOLE:
        return WHOLE[kind](dataset_name)
    evaluators = []
    if kind in ("sem_seg", "coco_panoptic_seg"):
        evaluators.append(SemanticEvaluator(dataset_name, output_dir=output_folder))
    if kind in ("coco", "coco_panoptic_seg"):
        # The reference implementation of pycocotools, not Detectron2's compiled one.
        evaluators.append(
            DetectionEvaluator(dataset_name, output_dir=output_folder, use_fast_impl=False)
        )
    if kind == "coco_panoptic_seg":
        evaluators.append(COCOPanopticEvaluator(dataset_name, output_folder))
    if kind == "lvis":
        evaluators.append(LVISEvaluator(dataset_name, output_dir=output_folder))
    if not evaluators:
        raise ValueError(f"dataset {dataset_name!r} has the unknown evaluator_type {kind!r}")
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
