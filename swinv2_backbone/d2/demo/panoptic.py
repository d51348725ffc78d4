"""The demo dataset, registered for Detectron2's panoptic models."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.d2.demo.annotations import BACKGROUND_ID, CLASSES
from swinv2_backbone.d2.demo.folder import DemoDataset, DemoSplit
from swinv2_backbone.d2.demo.scene import CATEGORIES, SPLITS

ROOT = Path("datasets/demo")


def register_demo_panoptic(
    name: str, dataset: DemoDataset, split: str, *, separated: bool = True
) -> None:
    """Register a split for panoptic models.

    (Detectron2's own functions for this purpose only find .jpg images.)

    Args:
        name: name for the registration, to be set in ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        dataset: as returned by ``generate_demo_dataset``.
        split: "train" or "val".
        separated: records have instances and semantic labels, 0 for things and 1 for the
            background, as Panoptic FPN needs: ``MODEL.SEM_SEG_HEAD.NUM_CLASSES 2`` and
            ``MODEL.ROI_HEADS.NUM_CLASSES 5``. False: records have segments of six classes, the
            background last, as ``INPUT.MASK_TARGETS panoptic`` needs.

    Raises:
        ValueError: the name is taken, or there is no such split.
    """
    files = dataset.split(split)
    if name in DatasetCatalog:
        raise ValueError(f"a dataset is already registered as {name!r}; choose another name")
    things = {id: index for index, id in enumerate(CATEGORIES)}
    metadata = MetadataCatalog.get(name).set(
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        image_root=str(files.images),
        json_file=str(files.json),
        panoptic_root=str(files.panoptic),
        panoptic_json=str(files.panoptic_json),
        thing_classes=list(CATEGORIES.values()),
        thing_dataset_id_to_contiguous_id=things,
    )
    if separated:
        DatasetCatalog.register(name, lambda: _load(name, files))
        metadata.set(
            sem_seg_root=str(files.stuff),
            stuff_classes=["things", CLASSES[0]],
            stuff_dataset_id_to_contiguous_id={0: 0, BACKGROUND_ID: 1},
        )
        return
    classes = {**things, BACKGROUND_ID: len(things)}
    DatasetCatalog.register(name, lambda: _load_segments(files, classes))
    metadata.set(
        stuff_classes=[*CATEGORIES.values(), CLASSES[0]], stuff_dataset_id_to_contiguous_id=classes
    )


def register_demo_segments(cfg: CfgNode) -> None:
    """Register datasets/demo as demo_panoptic_train and demo_panoptic_val.

    It is for ``--import swinv2_backbone.d2.demo.panoptic:register_demo_segments``; ``cfg`` is not
    changed.
    """
    for split in SPLITS:
        name = f"demo_panoptic_{split}"
        if name not in DatasetCatalog:
            register_demo_panoptic(name, DemoDataset.below(ROOT), split, separated=False)


def _load_segments(files: DemoSplit, classes: dict[int, int]) -> list[dict]:
    """Return the records of all images, with ``pan_seg_file_name`` and ``segments_info``."""
    remedy = "delete its folder, and generate the dataset again"
    content = read_record(files.panoptic_json, remedy)
    images = {image["id"]: image for image in content["images"]}
    return [
        {
            "file_name": str(files.images / images[entry["image_id"]]["file_name"]),
            "image_id": entry["image_id"],
            "height": images[entry["image_id"]]["height"],
            "width": images[entry["image_id"]]["width"],
            "pan_seg_file_name": str(files.panoptic / entry["file_name"]),
            "segments_info": [
                {**segment, "category_id": classes[segment["category_id"]]}
                for segment in entry["segments_info"]
            ],
        }
        for entry in content["annotations"]
    ]


def _load(name: str, files: DemoSplit) -> list[dict]:
    """Return the records of all images, with ``annotations`` and ``sem_seg_file_name``."""
    return merge_to_panoptic(
        load_coco_json(str(files.json), str(files.images), name),
        load_sem_seg(str(files.stuff), str(files.images), image_ext="png"),
    )
