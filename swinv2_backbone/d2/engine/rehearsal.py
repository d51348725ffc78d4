"""A trial run: a few iterations, checkpoints and evaluations, in about a minute."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.datasets.checked import TRIAL_RUNS
from swinv2_backbone.d2.data.storage.json_lists import JsonLists

ITERATIONS = 4
IMAGES = 8


def shorten(plan: TrainingPlan) -> TrainingPlan:
    """Shorten a plan to a trial run; its output folder must already be :func:`rehearsal_folder`.

    A trial run trains, writes checkpoints, evaluates the first images of each test dataset with
    everything that the plan asks for, and keeps the best weights. Its metrics are meaningless.
    """
    test = tuple(first_images(name, plan.run.output_dir) for name in plan.data.test)
    values = {
        "schedule.max_iter": ITERATIONS,
        "run.checkpoint_period": ITERATIONS // 2,
        "run.log_period": 1,
        "evaluation.period": ITERATIONS // 2,
        "evaluation.expected_results": [],
        "data.samples_picture": True,
        "run.trackers": (),
    }
    if test:  # otherwise there may be no loader to set them in
        values["data.test"] = test
    if plan.dialect is Dialect.YACS:  # in a LazyConfig these are relative to the length
        values |= {"schedule.warmup_iters": 1, "schedule.steps": ()}
        if plan.data.test_json or plan.data.test_labels:  # registered under this name
            values["data.test_name"] = test[0]
    return plan.replaced(values)


def rehearsal_folder(output_dir: str) -> str:
    """Return the folder of a trial run, which is separate from the files of the real run."""
    return str(Path(output_dir, TRIAL_RUNS))


def first_images(name: str, folder: str, count: int = IMAGES) -> str:
    """Register the first images of a dataset as another dataset; return its name.

    A dataset whose evaluator reads its own files (Cityscapes, Pascal VOC, LVIS) is not shortened.

    Args:
        folder: folder for the annotation files that evaluators read.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") not in ("coco", "sem_seg", "coco_panoptic_seg"):
        return name
    short = f"{name}_first_{count}"
    if short in DatasetCatalog:
        DatasetCatalog.remove(short)
        MetadataCatalog.remove(short)
    records = DatasetCatalog.get(name)[:count]
    entries = {key: value for key, value in metadata.as_dict().items() if key != "name"}
    for key in ("json_file", "panoptic_json"):
        if entries.get(key):
            entries[key] = _cut(Path(entries[key]), records, Path(folder, f"{short}_{key}.json"))
    DatasetCatalog.register(short, lambda: records)
    MetadataCatalog.get(short).set(**entries)
    return short


def _cut(source: Path, records: list[dict], target: Path) -> str:
    """Write the entries of a COCO-format file for the images of ``records``; return its path."""
    kept = {record["image_id"] for record in records}
    lists = JsonLists(source)  # which may be too long for the memory
    cut = {"images": "id", "annotations": "image_id"}
    content = lists.values | {key: lists[key] for key in lists.lists if key not in cut}
    for key, image_id in cut.items():
        pieces = ([one for one in part if one[image_id] in kept] for part in lists.pieces(key))
        content[key] = [one for part in pieces for one in part]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps(content))
    return str(target)
