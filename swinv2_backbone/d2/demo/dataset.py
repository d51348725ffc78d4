"""A generated dataset for trying a detector, a segmenter or a panoptic model in minutes.

Five shape classes on textured backgrounds, with the difficulties of real COCO files: category ids
with gaps, images of many sizes, images without objects, occlusion, objects cut by the border,
polygons of several parts, RLE masks and crowd regions. Nothing is downloaded. In addition to COCO's
instances there are label images for semantic segmentation, and COCO's panoptic format.

This file writes the dataset; `scene` draws an image, `annotations` has its ground truth, and
`folder` has the names of the files.
Since rings have holes, some masks are RLE: Detectron2 needs `INPUT.MASK_FORMAT = "bitmask"`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.demo.annotations import (
    BACKGROUND_ID,
    CLASSES,
    annotate,
    draw_labels,
    draw_panoptic,
    draw_stuff,
    panoptic_colors,
)
from swinv2_backbone.d2.demo.folder import (
    DemoDataset,
    DemoSplit,
    Record,
    claim,
    image_name,
    read_record,
    write_record,
)
from swinv2_backbone.d2.demo.scene import CATEGORIES, SPLITS, Instance, Scene, draw_scene

__all__ = [
    "CATEGORIES",
    "CLASSES",
    "SPLITS",
    "DemoDataset",
    "DemoSplit",
    "Instance",
    "Scene",
    "annotate",
    "draw_scene",
    "generate_demo_dataset",
]

MIN_IMAGE_SIZE = 64
LICENSE = {"id": 1, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
INFO = {"description": "generated shapes", "version": "1"}  # raised when the drawing changes


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, gray (H, W) or (H, W, 3) in BGR order."""
    path.parent.mkdir(exist_ok=True)
    write_picture(path, image)


def _write_scene(files: DemoSplit, name: str, scene: Scene) -> list[dict]:
    """Write an image and its label images; return the ``segments_info`` of the panoptic one."""
    ids, segments = draw_panoptic(scene)
    _write_image(files.images / name, scene.image)
    _write_image(files.labels / name, draw_labels(scene))
    _write_image(files.stuff / name, draw_stuff(scene))
    _write_image(files.panoptic / name, panoptic_colors(ids)[:, :, ::-1])
    return segments


def _write_split(root: Path, split: str, record: Record, count: int) -> None:
    """Draw and write the images of a split and its COCO annotation files."""
    files = DemoSplit.below(root, split)
    images: list[dict] = []
    annotations: list[dict] = []
    segmentations: list[dict] = []
    for index in range(count):
        scene = draw_scene(record.seed, split, index, record.image_size)
        (h, w), image_id, name = scene.image.shape[:2], index + 1, image_name(index)
        segments = _write_scene(files, name, scene)
        images.append({"id": image_id, "file_name": name, "height": h, "width": w, "license": 1})
        for instance in scene.instances:
            annotations.append(annotate(instance, len(annotations) + 1, image_id))
        segmentations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    things = [{"id": id, "name": name, "supercategory": "shape"} for id, name in CATEGORIES.items()]
    _write_coco(files.json, images, annotations, things)
    background = {"id": BACKGROUND_ID, "name": CLASSES[0], "supercategory": CLASSES[0]}
    categories = [{**background, "isthing": 0}, *({**thing, "isthing": 1} for thing in things)]
    _write_coco(files.panoptic_json, images, segmentations, categories)


def _write_coco(
    path: Path, images: Sequence[dict], annotations: Sequence[dict], categories: Sequence[dict]
) -> None:
    coco = {
        "info": INFO,
        "licenses": [LICENSE],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    write_text(path, json.dumps(coco))


def _check_arguments(root: Path, record: Record) -> None:
    if root.exists() and not root.is_dir():
        raise ValueError(f"root={root} is a file; it must be a folder or not exist yet")
    limits = {"seed": 0, "num_train": 1, "num_val": 1, "image_size": MIN_IMAGE_SIZE}
    for name, lowest in limits.items():
        if getattr(record, name) < lowest:
            raise ValueError(f"{name}={getattr(record, name)} must be at least {lowest}")


def generate_demo_dataset(
    root: str | Path,
    *,
    seed: int = 0,
    num_train: int = 1200,
    num_val: int = 200,
    image_size: int = 128,
) -> DemoDataset:
    """Write the demo dataset into the folder `root`, or reuse the one that exists.

    A complete dataset with the same parameters is left unchanged. One that is incomplete or has
    other parameters is written again. Files in `root` that the generator did not write are never
    removed or overwritten. Only one process at a time may call this for a folder.

    Args:
        root: folder for classes.txt, the files and folders of `DemoSplit` (train/, train.json,
            train_labels/ ...) and demo.json, which is written last and marks the dataset as
            complete. During writing there is a demo.partial.json instead.
        seed: at least 0; the same seed gives the same bytes.
        num_train, num_val: images per split, at least 1.
        image_size: typical side of an image in pixels, at least 64.

    Raises:
        ValueError: an argument is out of range, or `root` holds files of the user.
    """
    root, record = Path(root), Record(seed, num_train, num_val, image_size)
    _check_arguments(root, record)
    complete = read_record(root / "demo.json") == record
    if not (complete and all((root / name).is_file() for name in record.files())):
        claim(root, record)
        _write_split(root, "train", record, num_train)
        _write_split(root, "val", record, num_val)
        write_text(root / "classes.txt", "\n".join(CLASSES) + "\n")
        write_record(root / "demo.json", record)
        (root / "demo.partial.json").unlink(missing_ok=True)
    return DemoDataset.below(root)
