"""A rehearsal of a run: a few iterations, and everything that comes after them, in a minute."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

ITERATIONS = 4
IMAGES = 8
FOLDER = "fast_dev_run"  # of OUTPUT_DIR


def shorten(cfg: CfgNode) -> None:
    """Make ``cfg`` a rehearsal, in the :func:`rehearsal_folder` that is its OUTPUT_DIR by now.

    It trains, writes checkpoints in between, evaluates the first images of each test dataset with
    all that the config asks for, and keeps the best.  What it measures means nothing.
    """
    cfg.SOLVER.MAX_ITER = ITERATIONS
    cfg.SOLVER.WARMUP_ITERS = 1
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.CHECKPOINT_PERIOD = ITERATIONS // 2
    cfg.TEST.EVAL_PERIOD = ITERATIONS // 2
    cfg.TEST.EXPECTED_RESULTS = []
    cfg.DATASETS.TEST = tuple(first_images(name, cfg.OUTPUT_DIR) for name in cfg.DATASETS.TEST)


def rehearsal_folder(output_dir: str) -> str:
    """A folder of its own, so that a rehearsal touches nothing of a real run."""
    return str(Path(output_dir, FOLDER))


def first_images(name: str, folder: str, count: int = IMAGES) -> str:
    """Register the first images of a dataset as one of its own, and return that one's name.

    Of datasets whose evaluator reads files of its own (Cityscapes, Pascal VOC, LVIS) the whole is
    taken.

    Args:
        folder: for the annotation files that evaluators read.
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
    """Write what a COCO-format file says of the images of ``records``."""
    kept = {record["image_id"] for record in records}
    content = json.loads(source.read_text())
    content["images"] = [image for image in content["images"] if image["id"] in kept]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content))
    return str(target)
