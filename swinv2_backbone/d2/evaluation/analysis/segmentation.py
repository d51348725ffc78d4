"""Semantic segmentation compared with the ground truth: pixel confusion and IoU.

Legend: H, W are in pixels; K classes; labels are (H, W) integers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from pycocotools import mask as coco_mask
from tqdm import tqdm

from swinv2_backbone.d2.data.loading.images import read_labels
from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion


@dataclass(frozen=True)
class SegmentedImage:
    """One image with its label file and its prediction, a mask for every predicted class."""

    file_name: str
    label_file: str
    segments: list[dict]
    index: dict[int, int] | None  # category id -> class; None if they are the same

    def truth(self) -> np.ndarray:
        """Read the (H, W) classes of the label file, including the ignore value."""
        return read_labels(self.label_file).astype(np.int64)

    def predicted(self) -> np.ndarray:
        """Decode the predicted (H, W) classes.

        Raises:
            ValueError: the masks leave pixels without a class, or have an unknown category.
        """
        height, width = self.segments[0]["segmentation"]["size"]
        labels = np.full((height, width), -1, np.int64)
        for segment in self.segments:
            category = segment["category_id"]
            if self.index is not None and category not in self.index:
                raise ValueError(
                    f"the prediction on {self.file_name} has the unknown category {category}"
                )
            place = category if self.index is None else self.index[category]
            labels[coco_mask.decode(segment["segmentation"]).astype(bool)] = place
        if (labels < 0).any():
            raise ValueError(f"the prediction on {self.file_name} leaves pixels without a class")
        return labels


@dataclass(frozen=True)
class Segmentation:
    """The comparison of a dataset with its predictions.

    Attributes:
        images: the images, in the order of the dataset.
        scores: mIoU of each image; NaN if all its pixels are ignored.
        confusion: the table of pixel counts.
    """

    images: list[SegmentedImage]
    scores: list[float]
    confusion: Confusion

    def worst(self, count: int) -> list[int]:
        """Return indices of the images with the lowest mIoU, except perfect ones; ties by name."""
        wrong = [place for place, score in enumerate(self.scores) if score < 100]
        order = sorted(wrong, key=lambda i: (self.scores[i], self.images[i].file_name))
        return order[:count]


def compare_segmentation(dataset: str, predictions: list[dict]) -> Segmentation:
    """Compare predictions with the label files of a registered dataset.

    Raises:
        ValueError: an image has no prediction or one of another size, a predicted image is not in
            the dataset, or a label or prediction has an unknown class.
    """
    metadata = MetadataCatalog.get(dataset)
    classes = list(metadata.stuff_classes)
    images = _images(dataset, predictions, metadata)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    scores: list[float] = []
    for image in tqdm(images, desc="comparing pixels", unit="image", leave=False):
        of_image = _count(image, len(classes), metadata.ignore_label)
        counts += of_image
        scores.append(mean_iou(of_image))
    table = Confusion(counts, tuple(classes), tuple(classes), counts.sum(axis=1))
    return Segmentation(images, scores, table)


def class_iou(counts: np.ndarray) -> np.ndarray:
    """Return the (K,) IoU in percent of (K, K) counts; NaN for classes that do not occur."""
    right = np.diag(counts).astype(float)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    return 100 * np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)


def only_predicted_classes(counts: np.ndarray) -> list[int]:
    """Return the classes of (K, K) counts that are predicted but not in the ground truth."""
    return np.flatnonzero((counts.sum(axis=1) == 0) & (counts.sum(axis=0) > 0)).tolist()


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean IoU over the classes in truth or prediction; NaN if there are none.

    A class that is predicted but absent from the truth counts as 0, as in Detectron2 0.6.
    Detectron2's main branch excludes it, so that its mIoU of a small dataset can be higher.
    """
    found = class_iou(counts)
    found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else float("nan")


def _images(dataset: str, predictions: list[dict], metadata: Metadata) -> list[SegmentedImage]:
    segments = defaultdict(list)
    for one in predictions:
        segments[one["file_name"]].append(one)
    records = DatasetCatalog.get(dataset)
    absent = [record["file_name"] for record in records if record["file_name"] not in segments]
    unknown = sorted(set(segments) - {record["file_name"] for record in records})
    for wrong, words in (
        (absent, "images without a prediction in the dataset"),
        (unknown, "predicted images that are not in the dataset"),
    ):
        if wrong:
            raise ValueError(
                f"{words} {dataset!r} ({len(wrong)}), the first: {wrong[0]}; the predictions "
                "are of another dataset or folder: evaluate again (swinv2 eval)"
            )
    index = metadata.get("stuff_dataset_id_to_contiguous_id")
    return [
        SegmentedImage(
            record["file_name"], record["sem_seg_file_name"], segments[record["file_name"]], index
        )
        for record in records
    ]


def _count(image: SegmentedImage, classes: int, ignored: int) -> np.ndarray:
    """Count the pixels of an image, (K, K) with truth in rows, except ignored pixels."""
    truth, predicted = image.truth(), image.predicted()
    if truth.shape != predicted.shape:
        raise ValueError(
            f"{image.label_file} has the shape {truth.shape}, the prediction on "
            f"{image.file_name} {predicted.shape}"
        )
    counted = truth != ignored
    truth, predicted = truth[counted], predicted[counted]
    for labels, where in (
        (truth, image.label_file),
        (predicted, f"the prediction on {image.file_name}"),
    ):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"{where} has the value {labels.max()}, but there are {classes} classes "
                f"(and {ignored} for pixels to ignore)"
            )
    return np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, -1)
