"""Predictions and annotations drawn on their image.

Predictions are drawn by OpenCV, because matplotlib, which Detectron2's visualizer uses for
annotations, takes longer than a small model.

Legend: images are (H, W, 3) uint8 in BGR order, as in OpenCV. A drawing is an image that is
enlarged by ``scale``. N is the number of objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer

from swinv2_backbone.d2.inference.lettering import write_label
from swinv2_backbone.d2.inference.prediction import Classes, Prediction

LINE_HEIGHT = 400  # pixels; a smaller image is enlarged before it is drawn on
GRAY, WHITE = [128, 128, 128], (255, 255, 255)
OPACITY = 0.5  # of masks and regions
LEAST_REGION = 0.002  # of an image; a smaller region is drawn without its name
REGION_SIDE = 256  # pixels of the reduced image in which the places of names are found
VISIBLE = 0.05  # lowest score of a keypoint that is drawn

Color = tuple[int, int, int]


class _Region(NamedTuple):
    """A region of a map of numbers: its number there, its text and its color."""

    number: int
    text: str
    color: Color


class Artist:
    """An artist that always uses the same names and colors, so that drawings can be compared.

    The color of an object or region is that of its class.

    Args:
        classes: names to write beside objects and regions.
    """

    def __init__(self, classes: Classes):
        self.classes = classes
        stuff = _colors(len(classes.stuff))
        # A Metadata without a name belongs to no catalog, so that nothing is registered.
        self.metadata = Metadata(
            thing_classes=list(classes.things),
            stuff_classes=list(classes.stuff),
            stuff_colors=stuff,
        )
        self._things = [_bgr(color) for color in _palette(len(classes.things))]
        self._stuff = [_bgr(color) for color in stuff]

    def draw(self, image: np.ndarray, found: Prediction) -> np.ndarray:
        """Draw a prediction with names and scores on a copy of the image, enlarged if small."""
        scale = max(LINE_HEIGHT / image.shape[0], 1.0)
        if found.panoptic is not None:
            segments, descriptions = found.panoptic
            return _draw_regions(image, segments.numpy(), list(self._segments(descriptions)), scale)
        if found.instances is not None:
            return self._draw_instances(image, found.instances, scale)
        if found.labels is not None:
            return _draw_regions(image, found.labels, list(self._regions(found.labels)), scale)
        return _enlarged(image.copy(), scale)

    def draw_truth(self, image: np.ndarray, record: dict) -> np.ndarray:
        """Draw the annotations of a Detectron2 dataset's record on a copy of its image."""
        scale = max(LINE_HEIGHT / image.shape[0], 1.0)
        canvas = Visualizer(image[:, :, ::-1], self.metadata, scale=scale)
        return canvas.draw_dataset_dict(record).get_image()[:, :, ::-1]

    def _draw_instances(self, image: np.ndarray, found: Instances, scale: float) -> np.ndarray:
        numbers = found.pred_classes.tolist()
        colors = [self._things[number] for number in numbers]
        boxes = found.pred_boxes.tensor.numpy()
        texts = [
            f"{self.classes.things[number]} {score:.0%}"
            for number, score in zip(numbers, found.scores.tolist())
        ]
        order = np.argsort(-_areas(boxes), kind="stable").tolist()  # small objects above large ones
        drawing, outlines = image.copy(), {}
        if found.has("pred_masks"):
            for index in order:
                mask = found.pred_masks[index].numpy()
                outlines[index] = _tint(drawing, mask, boxes[index], colors[index])
        drawing = _enlarged(drawing, scale)
        line = _line_width(drawing)
        for index in order:
            _draw_outlines(drawing, outlines.get(index, ()), colors[index], scale, line)
            corners = (boxes[index] * scale).round().astype(int).tolist()
            cv2.rectangle(drawing, corners[:2], corners[2:], colors[index], line)
        if found.has("pred_keypoints"):
            _draw_keypoints(drawing, found.pred_keypoints.numpy(), colors, scale, line)
        for index in order:
            place = (boxes[index][:2] * scale).round().astype(int).tolist()
            write_label(drawing, texts[index], (place[0], place[1]), colors[index])
        return drawing

    def _regions(self, labels: np.ndarray) -> Iterator[_Region]:
        for number in np.flatnonzero(np.bincount(labels.ravel())).tolist():
            yield _Region(number, self.classes.stuff[number], self._stuff[number])

    def _segments(self, descriptions: Sequence[dict]) -> Iterator[_Region]:
        for segment in descriptions:
            things, number = segment["isthing"], segment["category_id"]
            name = (self.classes.things if things else self.classes.stuff)[number]
            score = f" {segment['score']:.0%}" if "score" in segment else ""
            color = (self._things if things else self._stuff)[number]
            yield _Region(segment["id"], name + score, color)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Concatenate two images side by side, with a white line to the right of each."""
    height = max(left.shape[0], right.shape[0])
    padded = [
        cv2.copyMakeBorder(one, 0, height - one.shape[0], 0, 8, cv2.BORDER_CONSTANT, value=WHITE)
        for one in (left, right)
    ]
    return np.concatenate(padded, axis=1)


def _tint(
    drawing: np.ndarray, mask: np.ndarray, box: np.ndarray, color: Color
) -> tuple[np.ndarray, ...]:
    """Tint the pixels of a mask, (H, W), and return its outlines."""
    height, width = mask.shape
    # Detectron2 pastes a mask into its box: no pixel is more than one outside.
    left, top = (max(int(value) - 1, 0) for value in box[:2])
    right, bottom = min(int(box[2]) + 2, width), min(int(box[3]) + 2, height)
    part = np.ascontiguousarray(mask[top:bottom, left:right], np.uint8)
    if not part.size or not cv2.countNonZero(part):  # whole masks of other kinds of models
        left, top, part = 0, 0, np.ascontiguousarray(mask, np.uint8)
    pixels = drawing[top : top + part.shape[0], left : left + part.shape[1]]
    tinted = cv2.addWeighted(pixels, 1 - OPACITY, np.full_like(pixels, color), OPACITY, 0)
    cv2.copyTo(tinted, part, pixels)
    return tuple(
        cv2.findContours(part, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(left, top))[0]
    )


def _draw_outlines(
    drawing: np.ndarray, outlines: Sequence[np.ndarray], color: Color, scale: float, line: int
) -> None:
    points = [((one + 0.5) * scale).round().astype(np.int32) for one in outlines]
    cv2.polylines(drawing, points, True, color, line, cv2.LINE_AA)


def _draw_keypoints(
    drawing: np.ndarray, keypoints: np.ndarray, colors: Sequence[Color], scale: float, line: int
) -> None:
    """Draw (N, K, 3) keypoints (x, y, score) as discs."""
    for points, color in zip(keypoints, colors):
        for x, y, score in points.tolist():
            if score > VISIBLE:
                center = (round(x * scale), round(y * scale))
                cv2.circle(drawing, center, 2 * line + 1, color, -1, cv2.LINE_AA)


def _draw_regions(
    image: np.ndarray, numbers: np.ndarray, regions: Sequence[_Region], scale: float
) -> np.ndarray:
    """Tint the regions of (H, W) numbers, draw their borders, and write their names."""
    table = np.zeros((max([region.number for region in regions], default=0) + 1, 3), np.uint8)
    known = np.zeros(len(table), np.uint8)
    for region in regions:
        table[region.number], known[region.number] = region.color, 1
    tinted = cv2.addWeighted(image, 1 - OPACITY, table[numbers], OPACITY, 0)
    drawing = np.ascontiguousarray(image)
    drawing = cv2.copyTo(tinted, known[numbers], drawing.copy())
    edge = np.zeros(numbers.shape, bool)
    edge[:-1] |= numbers[:-1] != numbers[1:]
    edge[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    drawing[edge] = WHITE
    drawing = _enlarged(drawing, scale)
    for region in regions:
        if place := _place_in(numbers, region.number):
            write_label(drawing, region.text, place, region.color, scale, centered=True)
    return drawing


def _place_in(numbers: np.ndarray, number: int) -> tuple[int, int] | None:
    """Return the pixel (x, y) farthest from the border of a region; None in a small one."""
    step = max(1, max(numbers.shape) // REGION_SIDE)
    reduced = np.ascontiguousarray(numbers[::step, ::step] == number, np.uint8)
    if cv2.countNonZero(reduced) < LEAST_REGION * reduced.size:
        return None
    inside = cv2.copyMakeBorder(reduced, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    place = cv2.minMaxLoc(cv2.distanceTransform(inside, cv2.DIST_L2, 3))[3]
    return (place[0] - 1) * step, (place[1] - 1) * step


def _enlarged(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _line_width(drawing: np.ndarray) -> int:
    return max(1, round(min(drawing.shape[:2]) / 500))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _bgr(color: Sequence[int]) -> Color:
    red, green, blue = color
    return blue, green, red


def _palette(count: int) -> list[list[int]]:
    """Return ``count`` RGB colors."""
    palette = colormap(rgb=True, maximum=255).astype(int).tolist()
    return [palette[index % len(palette)] for index in range(count)]


def _colors(count: int) -> list[list[int]]:
    """Return ``count`` RGB colors; the first, which is often the background, is gray."""
    return [GRAY, *_palette(count - 1)][:count]
