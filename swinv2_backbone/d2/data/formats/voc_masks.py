"""Pascal VOC's folders of masks: SegmentationObject (objects) and SegmentationClass (classes).

The value of a pixel in SegmentationObject is the number of its object, in SegmentationClass that of
its class; 0 is the background and 255 the border between objects. Writers store them as palette
images, or as RGB images of the palette's colors. ``labelmap.txt`` names the colors of the classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.d2.data.formats.subsets import listed_names
from swinv2_backbone.images.opening import opened

OBJECTS, CLASSES = "SegmentationObject", "SegmentationClass"
BACKGROUND, BORDER = "background", 255
# fmt: off
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
# fmt: on
NO_PICTURE = "listed images without a picture of their objects, read as images without objects"
NO_LABELS = "images without a picture of their objects, which may show unlabeled ones"


def read_voc_masks(source: Source) -> Dataset:
    """Read the objects of VOC's folders of masks, each to the pixel.

    Raises:
        ValueError: a folder or picture is missing, or a picture has colors or classes without a
            name.
    """
    root = source.path
    for folder in (OBJECTS, CLASSES):
        if not (root / folder).is_dir():
            raise ValueError(
                f"{root} has no {folder}: both {OBJECTS} and {CLASSES} are needed. Semantic labels "
                "are read as they are, by DATASETS.CUSTOM.TRAIN.LABELS"
            )
    pictures = Pictures(source.images or root / "JPEGImages")
    colors = _color_map(root / "labelmap.txt")
    names = [name for name in colors.values() if name not in (BACKGROUND, "")]
    dataset = Dataset(pictures.root, list(dict.fromkeys(names)))
    if not (root / "labelmap.txt").is_file():
        dataset.notes.append("the classes are VOC's own 20, because there is no labelmap.txt")
    listed = listed_names(
        source,
        ("Segmentation",),
        lambda name: (root / OBJECTS / f"{name}.png").is_file() or name in pictures,
    )
    for name in listed or [Path(file).stem for file in pictures.files]:
        file = root / OBJECTS / f"{name}.png"
        found = pictures.find(name)
        if not file.is_file() and listed and found:  # datumaro writes none for such images
            dataset.remark(NO_PICTURE, found)
            dataset.add_image(found, pictures.size(found))
            continue
        if not file.is_file():
            dataset.leave_out(NO_LABELS, found or name)
            continue
        _add_objects(dataset, found or f"{name}.jpg", file, root / CLASSES / f"{name}.png", colors)
    return dataset


def voc_color(index: int) -> tuple[int, int, int]:
    """Return the color of an index in VOC's palette."""
    color = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            color[channel] |= (index >> channel & 1) << 7 - place
        index >>= 3
    return color[0], color[1], color[2]


def _color_map(file: Path) -> dict[tuple[int, int, int], str]:
    """Return color -> class name, from ``labelmap.txt`` (name:r,g,b:...) or VOC's classes."""
    if not file.is_file():
        return {voc_color(index): name for index, name in enumerate(VOC_NAMES)}
    found: dict[tuple[int, int, int], str] = {}
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        color = rest.split(":")[0]
        try:  # datumaro writes no colors where they are VOC's
            red, green, blue = map(int, color.split(",")) if color else voc_color(len(found))
        except ValueError as error:
            raise ValueError(f"{file}: {line!r} is not name:red,green,blue::") from error
        found[red, green, blue] = name.strip()
    return found


def _add_objects(
    dataset: Dataset, file_name: str, objects_file: Path, classes_file: Path, colors: dict
) -> None:
    objects, classes = _colors_of(objects_file), _colors_of(classes_file)
    if objects.shape != classes.shape:
        raise ValueError(f"{objects_file} and {classes_file} differ in size")
    image = dataset.add_image(file_name, (objects.shape[0], objects.shape[1]))
    nothing = {_packed(voc_color(0)), _packed(voc_color(BORDER))}
    for value in np.unique(objects):
        if int(value) in nothing:
            continue
        mask = objects == value
        inside, counts = np.unique(classes[mask], return_counts=True)
        color = _unpacked(int(inside[counts.argmax()]))
        name = colors.get(color)
        if name is None:
            raise ValueError(
                f"{classes_file}: the color {color} has no class name: add labelmap.txt to the "
                "folder, with lines name:red,green,blue::"
            )
        if name in (BACKGROUND, ""):
            dataset.leave_out("objects of the class background", objects_file.name)
            continue
        dataset.add_mask(image, name, mask)


def _colors_of(file: Path) -> np.ndarray:
    """Return the color of each pixel as one number, (H, W).

    Indices of a gray picture stand for the colors of VOC's palette, and so do those of a palette
    picture whose palette is gray.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    with opened(file) as picture:
        picture.load()
        gray = picture.mode in ("L", "1") or (picture.mode == "P" and _is_gray(picture))
        pixels = np.asarray(picture if gray else picture.convert("RGB"))
    if gray:
        table = np.array([_packed(voc_color(index)) for index in range(256)])
        return table[pixels.astype(np.uint8)]
    return (pixels.astype(np.int64) * (65536, 256, 1)).sum(-1)


def _is_gray(picture: Image.Image) -> bool:
    palette = np.reshape(picture.getpalette() or [], (-1, 3))
    return bool((palette == palette[:, :1]).all())


def _packed(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpacked(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255
