"""What a model found in an image: arrays, drawings, and the forms of other libraries.

Legend: H, W are the height and width of the original image in pixels; N is the number of objects;
K is the number of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.d2.inference.prediction import Prediction, rle_of
from swinv2_backbone.d2.inference.predictor import Predictor

SHOWN = 5  # classes that a short description lists


class Detection(NamedTuple):
    """An object: (x0, y0, x1, y1) in pixels, score, class, its name, and (H, W) mask or None."""

    box: np.ndarray
    score: float
    label: int
    name: str
    mask: np.ndarray | None


class Panoptic(NamedTuple):
    """Segments of an image.

    Attributes:
        segments: (H, W) int32, the id of the segment of each pixel; 0: none.
        info: for each segment its id, isthing and category (a name), and perhaps score and area.
    """

    segments: np.ndarray
    info: list[dict[str, Any]]


class Result:
    """The prediction for an image. ``len`` and iteration are over its objects.

    Attributes:
        image: (H, W, 3) uint8 in RGB order; of bands, those that are drawn.
        path: the file or address of the image, or None.
        names: names of the K classes of objects, or of pixels if the model finds no objects, in
            the order of the training data.
        stuff_names: names of the classes of pixels.
    """

    def __init__(
        self, predictor: Predictor, picture: np.ndarray, found: Prediction, path: str | None = None
    ):
        self._predictor, self._picture, self._found = predictor, picture, found
        self.path = path
        self.stuff_names = list(predictor.classes.stuff)
        self.names = list(predictor.classes.things) or self.stuff_names

    @property
    def boxes(self) -> np.ndarray:
        """Boxes as (x0, y0, x1, y1) in pixels of the original image, (N, 4) float32."""
        if self._found.instances is None:
            return np.zeros((0, 4), np.float32)
        return self._found.instances.pred_boxes.tensor.numpy()

    @property
    def scores(self) -> np.ndarray:
        """Scores from 0 to 1, (N,) float32; the highest is first."""
        found = self._found.instances
        return np.zeros(0, np.float32) if found is None else found.scores.float().numpy()

    @property
    def classes(self) -> np.ndarray:
        """Classes, which are indices of ``names``, (N,) int64."""
        found = self._found.instances
        return np.zeros(0, np.int64) if found is None else found.pred_classes.numpy()

    @cached_property
    def masks(self) -> np.ndarray | None:
        """Masks of the objects, (N, H, W) bool; None if the model has none."""
        found = self._found.instances
        if found is not None and found.has("pred_rles"):
            masks = [coco_mask.decode(found.pred_rles[index]) for index in range(len(found))]
            return np.array(masks, bool).reshape(-1, *self.size)
        if found is None or not found.has("pred_masks"):
            return None
        return found.pred_masks.numpy().astype(bool, copy=False)

    @property
    def semantic(self) -> np.ndarray | None:
        """Class of each pixel, an index of ``stuff_names``, (H, W); None if the model has none."""
        return self._found.labels

    @property
    def panoptic(self) -> Panoptic | None:
        """Segments of a panoptic model, otherwise None."""
        if self._found.panoptic is None:
            return None
        return Panoptic(
            self._found.panoptic[0].numpy(), self._predictor.records(self._found)["segments"]
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the original image."""
        return self._picture.shape[0], self._picture.shape[1]

    @property
    def image(self) -> np.ndarray:
        return self._predictor.picture(self._picture)[:, :, ::-1]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for index, number in enumerate(self.classes.tolist()):
            mask = None if self.masks is None else self.masks[index]
            score = float(self.scores[index])
            yield Detection(self.boxes[index], score, number, self.names[number], mask)

    def __repr__(self) -> str:
        height, width = self.size
        return f"Result({self.path or 'image'}, {width} x {height}: {self._summary()})"

    def _summary(self) -> str:
        if self._found.panoptic is not None:
            names = Counter(
                one["category"] for one in self._predictor.records(self._found)["segments"]
            )
            return f"{_counted(sum(names.values()), 'segment')}{_listed(names)}"
        if self._found.instances is not None:
            names = Counter(self.names[number] for number in self.classes.tolist())
            return f"{_counted(len(self), 'object')}{_listed(names)}"
        shares = self._predictor.records(self._found).get("classes", {})
        most = sorted(shares.items(), key=lambda item: -item[1])[:SHOWN]
        return "pixels of " + ", ".join(f"{name} {share:.0%}" for name, share in most)

    def plot(self) -> np.ndarray:
        """Draw the prediction on the image: (H, W, 3) uint8 in RGB order, enlarged if small."""
        drawn = self._predictor.draw(self._picture, self._found)
        return np.ascontiguousarray(drawn[:, :, ::-1])

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file, whose suffix chooses the format, and return its path.

        Raises:
            ValueError: the suffix is that of no format.
            OSError: the file cannot be written.
        """
        with unfinished(Path(path)) as part:
            Image.fromarray(self.plot()).save(part)
        return Path(path)

    def to_coco(self, image_id: int = 0, category_ids: list[int] | None = None) -> list[dict]:
        """Return the objects as COCO results: bbox as (x, y, w, h), segmentation as RLE.

        Args:
            image_id: number of the image in the dataset.
            category_ids: COCO's number of each class, in the order of ``names``; default: 1 ... K.
        """
        numbers = category_ids or list(range(1, len(self.names) + 1))
        if len(numbers) != len(self.names):
            raise ValueError(f"there are {len(self.names)} classes, got category_ids {numbers}")
        found = []
        for index, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            one: dict[str, Any] = {"image_id": image_id}
            one["category_id"] = numbers[int(self.classes[index])]
            one["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            one["score"] = float(self.scores[index])
            assert self._found.instances is not None
            if (rle := rle_of(self._found.instances, index)) is not None:
                one["segmentation"] = rle
            found.append(one)
        return found

    def to_supervision(self) -> Any:
        """Return the objects as ``supervision.Detections``.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision() needs: pip install supervision") from error
        names = np.array([self.names[number] for number in self.classes.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.classes,
            data={"class_name": names},
        )

    def to_pandas(self) -> Any:
        """Return the objects as a ``pandas.DataFrame``: name, label, score, x0, y0, x1, y1.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped]  # its types are another package
        except ImportError as error:
            raise ImportError("to_pandas() needs: pip install pandas") from error
        names = [self.names[number] for number in self.classes.tolist()]
        columns: dict[str, Any] = {"name": names, "label": self.classes, "score": self.scores}
        columns |= {name: self.boxes[:, at] for at, name in enumerate(("x0", "y0", "x1", "y1"))}
        return pandas.DataFrame(columns)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(names: Counter[str]) -> str:
    most = [f"{count} {name}" for name, count in names.most_common(SHOWN)]
    if len(names) > SHOWN:
        most.append("...")
    return f" ({', '.join(most)})" if most else ""
