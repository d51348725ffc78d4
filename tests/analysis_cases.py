"""Truth and predictions made by hand, whose numbers are known, for tests of the analysis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.evaluation.analysis.average_precision import average_precisions, evaluate
from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion
from swinv2_backbone.d2.evaluation.analysis.detections import Detections
from swinv2_backbone.d2.evaluation.analysis.pictures import CAPTION

# Ids with gaps, not in their order in the file: the classes are dog, cat.
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
DOG, CAT = 3, 7
SMALL, MEDIUM = [5, 5, 20, 20], [40, 40, 40, 50]
SIZE = (120, 100)  # height, width of all images


def rle(box: list[float]) -> dict:
    """A filled box of whole numbers as a mask."""
    x, y, width, height = box
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def an_object(image: int, category: int, box: list[float], **more) -> dict:
    area = box[2] * box[3]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "segmentation": rle(box),
        **more,
    }


def found(image: int, category: int, box: list[float], score: float = 0.9, **more) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score, **more}


def write_coco(folder: Path, objects: list[dict], images: int = 2) -> Path:
    """A COCO-format dataset of noise under ``folder``; returns its JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    records = []
    for number in range(1, images + 1):
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), random.integers(0, 255, (*SIZE, 3), np.uint8))
        records.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    annotations = [{"id": number, **one} for number, one in enumerate(objects, 1)]
    content = {"images": records, "annotations": annotations, "categories": CATEGORIES}
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


def write_segmentation(folder: Path, truths: list, **image_options) -> list[dict]:
    """Images of noise with label files ``truths`` under ``folder``; returns their records."""
    folder.mkdir(parents=True, exist_ok=True)
    random, records = np.random.default_rng(0), []
    for number, truth in enumerate(truths):
        truth = np.asarray(truth, np.uint8)
        image, label = folder / f"{number}.jpg", folder / f"{number}.png"
        cv2.imwrite(str(image), random.integers(0, 255, (*truth.shape, 3), np.uint8))
        labels = Image.fromarray(truth)
        if image_options.get("palette"):
            labels = Image.fromarray(truth, mode="P")
            labels.putpalette(random.integers(0, 255, 768).astype(np.uint8).tobytes())
        labels.save(label)
        height, width = truth.shape
        records.append(
            {
                "file_name": str(image),
                "sem_seg_file_name": str(label),
                "height": height,
                "width": width,
            }
        )
    return records


def segments(record: dict, labels) -> list[dict]:
    """A prediction in the format of Detectron2's SemSegEvaluator."""
    labels = np.asarray(labels)
    entries = []
    for label in np.unique(labels):
        mask = coco_mask.encode(np.asfortranarray(labels == label, np.uint8))
        mask["counts"] = mask["counts"].decode()
        entries.append(
            {"file_name": record["file_name"], "category_id": int(label), "segmentation": mask}
        )
    return entries


TRUTH = [
    an_object(1, DOG, SMALL),
    an_object(1, CAT, MEDIUM),
    an_object(2, DOG, SMALL),
    an_object(2, CAT, MEDIUM),
]
PERFECT = [found(o["image_id"], o["category_id"], o["bbox"]) for o in TRUTH]


def precisions(detections: Detections, task: str = "bbox") -> dict:
    return average_precisions(evaluate(detections, task), detections)


def many_classes(count: int) -> Confusion:
    """Class i is missed i times and found 100 times."""
    counts = np.zeros((count + 1, count + 1), np.int64)
    counts[range(count), range(count)] = 100
    counts[:count, count] = range(count)
    names = tuple(f"class {number}" for number in range(count))
    return Confusion(counts, (*names, "background"), (*names, "missed"), counts.sum(axis=1))


def pixels(figure, folder: Path) -> np.ndarray:
    figure.savefig(folder / "figure.png", dpi=100)
    return cv2.imread(str(folder / "figure.png"))


def assert_is_a_picture(picture: np.ndarray) -> None:
    assert all(300 <= side <= 2200 for side in picture.shape[:2])
    assert len(np.unique(picture.astype(int) @ [1, 256, 65536])) > 20  # colors


def caption_has(picture: np.ndarray, color: tuple[float, float, float]) -> bool:
    difference = picture[:CAPTION].astype(int) - np.round(255 * np.array(color)).astype(int)
    return bool((np.abs(difference).max(axis=2) <= 3).any())


@contextmanager
def registered_datasets() -> Iterator[Callable[..., str]]:
    """Yield functions that register datasets, which are removed at the end."""
    names: list[str] = []

    def coco(folder: Path, objects: list[dict], images: int = 2) -> str:
        names.append(f"analysis_{folder.name}_{len(names)}")
        register_coco_instances(names[-1], {}, str(write_coco(folder, objects, images)), folder)
        DatasetCatalog.get(names[-1])
        return names[-1]

    def semantic(folder: Path, truths: list, classes: list[str], **options) -> str:
        names.append(f"analysis_{folder.name}_{len(names)}")
        records = write_segmentation(folder, truths, **options)
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(
            stuff_classes=classes, ignore_label=255, evaluator_type="sem_seg"
        )
        return names[-1]

    coco.semantic, coco.names = semantic, names
    yield coco
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
