"""The metrics of each kind of dataset, and a check that an evaluation will work."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
METRICS = {
    "bbox": BOXES,
    "segm": BOXES,
    "sem_seg": ("mIoU", "fwIoU", "mACC", "pACC"),
    "panoptic_seg": ("PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"),
}
TASKS = {  # evaluator_type of a dataset -> the tasks that are evaluated on it
    "coco": ("bbox", "segm"),
    "lvis": ("bbox", "segm"),
    "sem_seg": ("sem_seg",),
    "coco_panoptic_seg": ("bbox", "segm", "sem_seg", "panoptic_seg"),
}
OTHERS = ("cityscapes_instance", "cityscapes_sem_seg", "pascal_voc")  # read by their evaluators


def evaluation_faults(
    dataset_names: Sequence[str], best_metric: str = "", *, masks: bool = True
) -> list[tuple[str, str]]:
    """Return every problem that would make the evaluation after training fail.

    Args:
        dataset_names: datasets to test on.
        best_metric: metric that selects ``model_best.pth``, such as "bbox/AP"; "" for none.
        masks: True if the model predicts instance masks.

    Returns:
        (option, message) pairs. The option is "data.test" or "evaluation.best_metric", a name in
        the training plan; the message does not repeat it, since its key depends on the config
        dialect.
    """
    faults = [("data.test", message) for message in _dataset_faults(dataset_names)]
    if best_metric and len(dataset_names) != 1:
        message = f"{best_metric!r} needs exactly one dataset to test on, got {len(dataset_names)}"
        faults.append(("evaluation.best_metric", message))
    elif best_metric:
        message = _metric_fault(best_metric, dataset_names[0], masks)
        faults += [("evaluation.best_metric", message)] if message else []
    return faults


def tasks_of(dataset_name: str) -> tuple[str, ...]:
    """Return the tasks that a dataset is evaluated on; empty if its evaluator reads it.

    A panoptic dataset without semantic label images, such as Detectron2's coco_2017_val_panoptic,
    has no semantic task.
    """
    tasks = TASKS.get(_kind_of(dataset_name) or "", ())
    if "panoptic_seg" not in tasks or _has_labels(dataset_name):
        return tasks
    return tuple(task for task in tasks if task != "sem_seg")


def _has_labels(dataset_name: str) -> bool:
    if MetadataCatalog.get(dataset_name).get("sem_seg_root"):
        return True
    records = DatasetCatalog.get(dataset_name) if dataset_name in DatasetCatalog else ()
    return any("sem_seg_file_name" in record for record in records[:1])


def _dataset_faults(names: Sequence[str]) -> list[str]:
    faults, kinds = [], [_kind_of(name) for name in names]
    for name, kind in zip(names, kinds):
        if kind not in (*TASKS, *OTHERS):
            faults.append(
                f"dataset {name!r} has the evaluator_type {kind!r}: set it in the MetadataCatalog "
                f"to one of {', '.join((*TASKS, *OTHERS))}"
            )
    if "coco_panoptic_seg" in kinds and importlib.util.find_spec("panopticapi") is None:
        faults.append(
            f"dataset {names[kinds.index('coco_panoptic_seg')]!r} is evaluated by panopticapi, "
            "which is not installed: pip install git+https://github.com/cocodataset/panopticapi, "
            "or remove the test dataset"
        )
    return faults


def _metric_fault(metric: str, dataset: str, masks: bool) -> str:
    """Return why a metric cannot be used on a dataset, or "" if it can."""
    task, _, name = metric.partition("/")
    tasks = [t for t in tasks_of(dataset) or METRICS if masks or t != "segm"]
    if task in tasks and name in (*METRICS[task], *_class_metrics(task, dataset)):
        return ""
    known = ", ".join(f"{task}/{name}" for task in tasks for name in METRICS[task])
    return (
        f"{metric!r} is not a metric of this dataset: it must be one of {known}, or of one class "
        "(AP-NAME, IoU-NAME)"
    )


def _kind_of(dataset: str) -> str | None:
    return MetadataCatalog.get(dataset).get("evaluator_type")


def _class_metrics(task: str, dataset: str) -> list[str]:
    """Return the metrics of single classes, such as AP-person or IoU-sky."""
    metadata = MetadataCatalog.get(dataset)
    if task == "sem_seg":
        names = metadata.get("stuff_classes", ())
        return [f"{metric}-{name}" for metric in ("IoU", "ACC") for name in names]
    return [f"AP-{name}" for name in metadata.get("thing_classes", ())]
