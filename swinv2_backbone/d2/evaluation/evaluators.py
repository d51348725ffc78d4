"""Evaluation as the benchmarks define it, its results as JSON, and what counts as best."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

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

BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
METRICS = {
    "bbox": BOXES,
    "segm": BOXES,
    "sem_seg": ("mIoU", "fwIoU", "mACC", "pACC"),
    "panoptic_seg": ("PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"),
}
TASKS = {  # evaluator_type of a dataset -> the groups of metrics
    "coco": ("bbox", "segm"),
    "lvis": ("bbox", "segm"),
    "sem_seg": ("sem_seg",),
    "coco_panoptic_seg": ("bbox", "segm", "sem_seg", "panoptic_seg"),
}
OTHERS = ("cityscapes_instance", "cityscapes_sem_seg", "pascal_voc")  # evaluated by own files
RESULTS = "results.json"


class DetectionEvaluator(COCOEvaluator):
    """Detectron2's, in which a model that finds nothing has an AP of 0, for boxes and for masks.

    (Detectron2's says NaN for boxes and nothing of masks, so that an early evaluation lacks what a
    later one has.)
    """

    def reset(self) -> None:
        super().reset()
        self._has_masks = False

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        found = [output["instances"] for output in outputs if "instances" in output]
        self._has_masks |= any(instances.has("pred_masks") for instances in found)
        super().process(inputs, outputs)

    def _tasks_from_predictions(self, predictions: list[dict]) -> list[str]:
        # Detectron2 looks for masks in what was found, which may be nothing.
        masks = {"segm"} if self._has_masks else set()
        return sorted({*super()._tasks_from_predictions(predictions), *masks})

    def _derive_coco_results(self, coco_eval, iou_type: str, class_names=None) -> dict:
        if coco_eval is not None:
            return super()._derive_coco_results(coco_eval, iou_type, class_names)
        classes = [f"AP-{name}" for name in class_names] if len(class_names or ()) > 1 else []
        return dict.fromkeys((*BOXES, *classes), 0.0)


class SemanticEvaluator(SemSegEvaluator):
    """Detectron2's, with the mIoU of its version 0.6 and of mmsegmentation in every version.

    A class that is predicted but nowhere in the truth counts as 0; Detectron2's main branch leaves
    it out of the mean.
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
    """What Detectron2's benchmarks use for the dataset's kind (its ``evaluator_type``).

    Raises:
        ValueError: the kind is unknown, or needs a package that is not installed.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    whole = {
        "cityscapes_instance": CityscapesInstanceEvaluator,
        "cityscapes_sem_seg": CityscapesSemSegEvaluator,
        "pascal_voc": PascalVOCDetectionEvaluator,
    }
    if kind in whole:
        return whole[kind](dataset_name)
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


def check_evaluation(
    dataset_names: Sequence[str], best_metric: str = "", *, masks: bool = True
) -> None:
    """Raise ValueError now for an evaluation that could not work after the training.

    Args:
        best_metric: "" or what ``model_best.pth`` is to be best at, such as "bbox/AP".
        masks: the model finds masks of objects.
    """
    kinds = [MetadataCatalog.get(name).get("evaluator_type") for name in dataset_names]
    for name, kind in zip(dataset_names, kinds):
        if kind not in (*TASKS, *OTHERS):
            raise ValueError(
                f"dataset {name!r} has the evaluator_type {kind!r}: set it in the MetadataCatalog "
                f"to one of {', '.join((*TASKS, *OTHERS))}"
            )
    if "coco_panoptic_seg" in kinds and importlib.util.find_spec("panopticapi") is None:
        raise ValueError(
            f"dataset {dataset_names[kinds.index('coco_panoptic_seg')]!r} is evaluated by "
            "panopticapi, which is not installed: pip install "
            "git+https://github.com/cocodataset/panopticapi (or test nothing: DATASETS.TEST '()', "
            "dataloader.test.dataset.names=[])"
        )
    if not best_metric:
        return
    if len(dataset_names) != 1:
        raise ValueError(
            f"TEST.BEST_METRIC {best_metric!r} needs one dataset to test on, "
            f"got {len(dataset_names)} (DATASETS.TEST)"
        )
    task, _, metric = best_metric.partition("/")
    tasks = [t for t in TASKS.get(kinds[0], METRICS) if masks or t != "segm"]
    if task not in tasks or metric not in (*METRICS[task], *_of_classes(task, dataset_names[0])):
        known = ", ".join(f"{task}/{metric}" for task in tasks for metric in METRICS[task])
        raise ValueError(
            f"TEST.BEST_METRIC {best_metric!r} must be one of {known}, or of one class (AP-NAME, "
            "IoU-NAME)"
        )


def _of_classes(task: str, dataset: str) -> list[str]:
    """The metrics of single classes, such as AP-person or IoU-sky."""
    metadata = MetadataCatalog.get(dataset)
    if task == "sem_seg":
        names = metadata.get("stuff_classes", ())
        return [f"{metric}-{name}" for metric in ("IoU", "ACC") for name in names]
    return [f"AP-{name}" for name in metadata.get("thing_classes", ())]


def write_results(results: dict, folder: str | os.PathLike) -> Path:
    """Write what an evaluation returned as JSON; a number that is not one becomes null."""
    path = Path(folder, RESULTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(results), indent=1) + "\n")
    return path


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return float(value) if math.isfinite(value) else None
