"""Drawings of single images: ground truth on the left, prediction on the right.

Legend: H, W are in pixels; images are (H, W, 3) uint8 in RGB order.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.visualizer import Visualizer

from swinv2_backbone.d2.data.loading.bands import read_picture
from swinv2_backbone.d2.evaluation.analysis.detections import Detections
from swinv2_backbone.d2.evaluation.analysis.matching import Matches
from swinv2_backbone.d2.evaluation.analysis.segmentation import SegmentedImage
from swinv2_backbone.d2.inference.drawing import beside

SMALLEST, LARGEST = 400, 1000  # limits of the height of a drawing, in pixels
CAPTION = 30  # height of the line above it
# Distinguishable with color blindness (the palette of Okabe and Ito).
RIGHT, MISSED, FALSE = (0.0, 0.62, 0.45), (0.9, 0.6, 0.0), (0.84, 0.37, 0.0)
CONFUSED, IGNORED = (0.8, 0.47, 0.65), (0.5, 0.5, 0.5)
Color = tuple[float, float, float]  # RGB in 0 ... 1
Words = list[tuple[str, Color]]  # texts and their colors
Read = Callable[[str], np.ndarray]  # file name -> (H, W, 3) uint8 RGB
# (title, color, objects or detections)
Groups = tuple[tuple[str, Color, list[dict]], ...]


def draw_detections(
    file_name: str, matches: Matches, detections: Detections, read: Read = read_picture
) -> np.ndarray:
    """Draw the objects and detections of an image, colored by the result of the matching."""
    picture = read(file_name)
    right, confused = matches.right, matches.confused
    truth = (
        ("found", RIGHT, [a for a, _ in right]),
        ("wrong class", CONFUSED, [a for a, _ in confused]),
        ("missed", MISSED, matches.missed),
        ("crowds", IGNORED, matches.crowds),
    )
    found = (
        ("right", RIGHT, [b for _, b in right]),
        ("wrong class", CONFUSED, [b for _, b in confused]),
        ("false", FALSE, matches.false),
        ("in crowds", IGNORED, matches.ignored),
    )
    return beside(
        *(
            _panel(picture, title, groups, detections)
            for title, groups in (("truth", truth), ("prediction", found))
        )
    )


def draw_segmentation(
    image: SegmentedImage, classes: list[str], score: float, read: Read = read_picture
) -> np.ndarray:
    """Draw truth and prediction of an image in the same colors; ignored pixels are not colored."""
    picture = read(image.file_name)
    drawn = []
    for title, labels in (
        ("truth", image.truth()),
        (f"prediction, mIoU {score:.1f}", image.predicted()),
    ):
        canvas = _canvas(picture, Metadata(stuff_classes=classes, stuff_colors=_colors(classes)))
        shown = np.where(labels < len(classes), labels, len(classes))
        one = canvas.draw_sem_seg(shown, alpha=0.6).get_image()
        drawn.append(_captioned(one, [(title, (0, 0, 0))]))
    return beside(*drawn)


def _panel(picture: np.ndarray, title: str, groups: Groups, detections: Detections) -> np.ndarray:
    """Draw boxes and masks on an image, below a caption that counts the groups."""
    canvas = _canvas(picture, Metadata(thing_classes=detections.classes))
    shown = [(one, color) for _, color, some in groups for one in some]
    entries = [one for one, _ in shown]
    with_masks = all(one.get("segmentation") for one in entries)
    drawn = canvas.overlay_instances(
        boxes=[_corners(one["bbox"]) for one in entries] or None,
        masks=[_mask(one, picture.shape[:2]) for one in entries] if with_masks else None,
        labels=[_label(one, detections) for one in entries],
        assigned_colors=[color for _, color in shown],
        alpha=0.3,
    ).get_image()
    words: Words = [(f"{title}:", (0, 0, 0))]
    words += [(f"{len(some)} {name}", color) for name, color, some in groups if some]
    return _captioned(drawn, words if len(words) > 1 else [(f"{title}: nothing", (0, 0, 0))])


def _label(one: dict, detections: Detections) -> str:
    name = detections.classes[detections.index[one["category_id"]]]
    if one.get("iscrowd"):
        return f"{name} (crowd)"
    return f"{name} {one['score']:.0%}" if "score" in one else name


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _mask(one: dict, shape: tuple[int, int]) -> list[np.ndarray] | dict | np.ndarray:
    """Convert a mask for the Visualizer, which cannot draw polygons without an area."""
    if isinstance(one["segmentation"], dict):
        return one["segmentation"]
    polygons = [np.asarray(points, float) for points in one["segmentation"] if len(points) >= 6]
    return polygons or np.zeros(shape, np.uint8)


def _canvas(picture: np.ndarray, metadata: Metadata) -> Visualizer:
    """Return a Visualizer for a drawing of a reasonable size."""
    height = picture.shape[0]
    return Visualizer(picture, metadata, scale=min(max(height, SMALLEST), LARGEST) / height)


def _captioned(drawn: np.ndarray, words: Words) -> np.ndarray:
    """Add a white line with words above a drawing, which becomes wider if necessary."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    widths = [cv2.getTextSize(text, font, scale, 1)[0][0] + 12 for text, _ in words]
    width = max(drawn.shape[1], sum(widths))
    caption = np.full((CAPTION, width, 3), 255, np.uint8)
    x = 4
    for (text, color), step in zip(words, widths):
        rgb = [255 * part for part in color]
        cv2.putText(caption, text, (x, 20), font, scale, rgb, 1, cv2.LINE_AA)
        x += step
    filled = np.full((drawn.shape[0], width, 3), 255, np.uint8)
    filled[:, : drawn.shape[1]] = drawn
    return np.concatenate([caption, filled])


def _colors(classes: list[str]) -> list[tuple[int, int, int]]:
    """Return a fixed color for each class; neighboring classes differ."""
    golden = 0.618  # steps of the golden ratio keep each hue far from all earlier ones
    colors = [
        colorsys.hsv_to_rgb(
            place * golden % 1, 0.9 - 0.3 * (place % 2), 0.95 - 0.3 * (place % 3 == 2)
        )
        for place in range(len(classes))
    ]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors]
