"""The demo dataset, registered for Detectron2's panoptic models."""

from __future__ import annotations

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

from swinv2_backbone.d2.demo.annotations import BACKGROUND_ID, CLASSES
from swinv2_backbone.d2.demo.folder import DemoDataset, DemoSplit
from swinv2_backbone.d2.demo.scene import CATEGORIES


def register_demo_panoptic(name: str, dataset: DemoDataset, split: str) -> None:
    """Register a split with both instances and semantic labels, as Panoptic FPN needs.

    The semantic labels are 0 for things and 1 for the background: a model needs
    ``MODEL.SEM_SEG_HEAD.NUM_CLASSES 2`` and ``MODEL.ROI_HEADS.NUM_CLASSES 5``. (Detectron2's own
    function for this purpose only finds .jpg images.)

    Args:
        name: name for the registration, to be set in ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        dataset: as returned by ``generate_demo_dataset``.
        split: "train" or "val".

    Raises:
        ValueError: the name is taken, or there is no such split.
    """
    files = dataset.split(split)
    if name in DatasetCatalog:
        raise ValueError(f"a dataset is already registered as {name!r}; choose another name")
    DatasetCatalog.register(name, lambda: _load(name, files))
    MetadataCatalog.get(name).set(
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        image_root=str(files.images),
        json_file=str(files.json),
        sem_seg_root=str(files.stuff),
        panoptic_root=str(files.panoptic),
        panoptic_json=str(files.panoptic_json),
        thing_classes=list(CATEGORIES.values()),
        thing_dataset_id_to_contiguous_id={id: index for index, id in enumerate(CATEGORIES)},
        stuff_classes=["things", CLASSES[0]],
        stuff_dataset_id_to_contiguous_id={0: 0, BACKGROUND_ID: 1},
    )


def _load(name: str, files: DemoSplit) -> list[dict]:
    """Return the records of all images, with ``annotations`` and ``sem_seg_file_name``."""
    return merge_to_panoptic(
        load_coco_json(str(files.json), str(files.images), name),
        load_sem_seg(str(files.stuff), str(files.images), image_ext="png"),
    )
