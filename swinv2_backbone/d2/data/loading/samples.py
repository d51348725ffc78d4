"""A picture of the first training images, with their labels, as the model will see them.

It shows most faults of a dataset at a glance: boxes in another form, masks beside their objects,
exchanged classes, augmentation that leaves nothing to learn.

Legend: H, W are in pixels; pictures are (H, W, 3) uint8 in RGB order.
"""

from __future__ import annotations

import colorsys
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from PIL import Image

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.d2.data.loading.bands import BANDS, as_picture
from swinv2_backbone.d2.data.loading.draws import DrawnImages
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.validation.report import counted

COUNT, COLUMNS = 9, 3
SIDE = 420  # pixels of the longer side of each image in the picture
LINE = 20  # height of a line of text
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


class Names(NamedTuple):
    """Class names, and how to show the pixels of an image.

    Attributes:
        things, stuff: names in the order of the model's outputs.
        ignored: label value without a class.
        image_format: channel order, "RGB", "BGR" or "BANDS".
        display_bands: bands shown as red, green and blue; empty: the first three.
    """

    things: Sequence[str] = ()
    stuff: Sequence[str] = ()
    ignored: int = 255
    image_format: str = "RGB"
    display_bands: Sequence[int] = ()


def write_samples(loader: TrainLoader, names: Names, path: Path) -> None:
    """Write a picture of the next training images, without advancing the loader.

    The images are read in this process by a copy of the mapper; random generators are restored.

    Raises:
        ValueError: the loader's own mapper gives records without an image.
    """
    records = next_records(loader)
    if not all(torch.is_tensor(record.get("image")) for record in records):
        raise ValueError("records without an image cannot be drawn")
    cells = [_cell(record, names) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as part:
        Image.fromarray(_tiled(cells)).save(part, quality=90)


def next_records(loader: TrainLoader, count: int = COUNT) -> list[dict]:
    """Return the next mapped records of this process, as the loader will yield them."""
    images = DrawnImages(loader.records, copy.deepcopy(loader.mapper), loader.seed)
    return [images[draw].record for draw in loader.next_draws(count)]


def _cell(record: dict, names: Names) -> np.ndarray:
    """Draw a record with its labels, below a line with its file name."""
    picture = _shown(record["image"], names)
    scale = SIDE / max(picture.shape[:2])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    canvas = cv2.resize(picture, size, interpolation=method)
    words = [Path(str(record.get("file_name", ""))).name]
    if "sem_seg" in record:
        words += _paint_regions(canvas, record["sem_seg"].numpy(), names)
    if "instances" in record:
        words.append(counted(len(record["instances"]), "object"))
        _paint_objects(canvas, record["instances"], names)
    caption = np.full((LINE, canvas.shape[1], 3), 255, np.uint8)
    _write(caption, ", ".join(words), (3, 14), BLACK)
    return np.concatenate([caption, canvas])


def _shown(image: torch.Tensor, names: Names) -> np.ndarray:
    """Return a tensor (n, H, W) as a picture."""
    pixels = image.numpy().transpose(1, 2, 0)
    if names.image_format == BANDS or pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        return np.ascontiguousarray(as_picture(pixels, names.display_bands)[:, :, ::-1])
    return np.ascontiguousarray(pixels[:, :, ::-1] if names.image_format == "BGR" else pixels)


def _paint_objects(canvas: np.ndarray, objects: Instances, names: Names) -> None:
    """Draw masks first, then boxes and names over all of them."""
    height, width = objects.image_size
    across, down = canvas.shape[1] / width, canvas.shape[0] / height
    boxes = objects.gt_boxes.tensor.tolist() if objects.has("gt_boxes") else []
    for number, mask in enumerate(_bitmaps(objects)):
        _blend(canvas, mask, class_color(number))
    for number, (box, label) in enumerate(zip(boxes, objects.gt_classes.tolist())):
        left, top, right, bottom = box
        start = round(left * across), round(top * down)
        end = round(right * across) - 1, round(bottom * down) - 1
        cv2.rectangle(canvas, start, end, class_color(number), 1)
        word = names.things[label] if label < len(names.things) else str(label)
        _write(canvas, word, (start[0] + 2, max(start[1] + 12, 12)), WHITE, outlined=True)


def _bitmaps(objects: Instances) -> list[np.ndarray]:
    """Return the masks (H, W) of all objects; an empty list if they have none."""
    if not objects.has("gt_masks") or not len(objects):
        return []
    masks = objects.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks.polygons, *objects.image_size)
    return list(getattr(masks, "tensor", masks).numpy())


def _paint_regions(canvas: np.ndarray, labels: np.ndarray, names: Names) -> list[str]:
    """Color the classes of semantic labels; return their names and shares."""
    words = []
    for value, count in zip(*np.unique(labels, return_counts=True)):
        share = f"{count / labels.size:.0%}"
        if value == names.ignored:
            words.append(f"ignored {share}")
            continue
        _blend(canvas, labels == value, class_color(int(value)))
        word = names.stuff[value] if value < len(names.stuff) else str(value)
        words.append(f"{word} {share}")
        rows, columns = np.nonzero(labels == value)
        middle = len(rows) // 2
        place = (
            int(columns[middle] * canvas.shape[1] / labels.shape[1]),
            int(rows[middle] * canvas.shape[0] / labels.shape[0]),
        )
        _write(canvas, word, place, WHITE, outlined=True)
    return words


def _blend(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    size = (canvas.shape[1], canvas.shape[0])
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    canvas[inside] = (0.55 * canvas[inside] + 0.45 * np.array(color)).astype(np.uint8)


def class_color(number: int) -> tuple[int, int, int]:
    """Return the color of a number; neighboring numbers get different ones."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _write(
    canvas: np.ndarray, text: str, place: tuple[int, int], color: tuple, outlined: bool = False
) -> None:
    text = text.encode("ascii", "replace").decode("ascii")  # OpenCV's fonts have no other letters
    if outlined:
        cv2.putText(canvas, text, place, FONT, 0.4, BLACK, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, place, FONT, 0.4, color, 1, cv2.LINE_AA)


def _tiled(cells: list[np.ndarray]) -> np.ndarray:
    """Arrange pictures in rows on white."""
    height = max(cell.shape[0] for cell in cells) + 4
    width = max(cell.shape[1] for cell in cells) + 4
    rows = -(-len(cells) // COLUMNS)
    sheet = np.full((rows * height, min(len(cells), COLUMNS) * width, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        y, x = height * (number // COLUMNS), width * (number % COLUMNS)
        sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return sheet
