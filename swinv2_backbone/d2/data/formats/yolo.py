"""YOLO: one text file per image; coordinates are fractions of its width and height.

A line is ``class x y width height`` (the center of a box) or ``class x1 y1 x2 y2 x3 y3 ...``, a
polygon. ``data.yaml`` names the classes and the folders of images; the labels of ``images/a.jpg``
are in ``labels/a.txt``.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source
from swinv2_backbone.d2.data.formats.pictures import Pictures, is_picture
from swinv2_backbone.d2.data.formats.subsets import chosen
from swinv2_backbone.images.kinds import is_hidden

SUBSETS = ("train", "val", "valid", "test")
FARTHEST = 2.0  # largest coordinate that is taken for a fraction
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
NO_IMAGE = "files of labels without an image"
NO_LABELS = "images without a file of labels, read as images without objects"


def read_yolo(source: Source) -> Dataset:
    """Read YOLO's boxes and polygons.

    Args:
        source: ``data.yaml`` or its folder, or a folder of labels with ``classes.txt``; with
            ``images``, the images are those, not the ones that ``data.yaml`` names.

    Raises:
        ValueError: there are no class names or images, or a line of labels is invalid.
    """
    file = _description(source.path)
    content = _read_yaml(file) if file.suffix != ".txt" else {}
    if content:
        names = _names(content, file)
    else:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        names = dict(enumerate(line.strip() for line in lines if line.strip()))
    root, files = _images(source, file, content)
    dataset, pictures = Dataset(root, list(names.values())), Pictures(root)
    keypoints = bool(content.get("kpt_shape"))
    used = {file}
    for name in files:
        image = dataset.add_image(name, pictures.size(name))
        labels = _labels_of(root / name, source.path)
        if labels is None:
            dataset.remark(NO_LABELS, name)
            continue
        used.add(labels)
        for place, values in _rows(labels):
            _add(dataset, image, names, place, values, keypoints)
    for path in _without_image(used, pictures):
        dataset.leave_out(NO_IMAGE, str(path))
    return dataset


def _without_image(used: set[Path], pictures: Pictures) -> Iterator[Path]:
    """Yield the files beside the used labels that hold rows, but belong to no image."""
    stems = {Path(name).stem for name in pictures.files}
    for folder in sorted({path.parent for path in used if path.suffix == ".txt"}):
        for path in sorted(folder.glob("*.txt")):
            if path in used or path.stem in stems or is_hidden(path.name):
                continue
            first = path.read_text(encoding="utf-8-sig", errors="replace").split(maxsplit=5)
            if len(first) > 4 and all(NUMBER.fullmatch(word) for word in first[:5]):
                yield path


def _description(path: Path) -> Path:
    """Return the file that names the classes."""
    if path.is_file():
        return path
    for pattern in ("data.y*ml", "dataset.y*ml", "*.yaml", "*.yml", "classes.txt", "obj.names"):
        for folder in (path, path.parent) if pattern == "classes.txt" else (path,):
            if found := sorted(folder.glob(pattern)):
                return found[0]
    raise ValueError(f"{path} has no data.yaml or classes.txt, which would name YOLO's classes")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise ValueError(f"{file} has no names, the list of YOLO's classes")
    return content


def _names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return number -> class name; ``names`` may be a list or such a mapping."""
    names = content["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(str(n).isdecimal() for n in names):
        raise ValueError(f"{file}: names must be a list of class names, or number: name")
    found = {int(number): str(name).strip() for number, name in names.items()}
    if twice := [name for name, count in Counter(found.values()).items() if count > 1]:
        raise ValueError(f"{file}: several classes have the name {twice[0]!r}: name each its own")
    return dict(sorted(found.items()))


def _images(source: Source, file: Path, content: dict[str, Any]) -> tuple[Path, list[str]]:
    """Return the folder of images and the names of the subset's files in it."""
    if source.images:
        return source.images, Pictures(source.images).files
    available = [name for name in SUBSETS if content.get(name)]
    if not available:
        for folder in (source.path / "images", source.path.parent / "images", source.path):
            if folder.is_dir() and (files := Pictures(folder).files):
                return folder, files
        raise ValueError(f"{file} names no images: give their folder (IMAGES, --images)")
    given = content[chosen(source.subset, available, file)]
    paths = [
        image
        for entry in (given if isinstance(given, list) else [given])
        for image in _listed(_resolved(str(entry), file, content))
    ]
    if not paths:
        raise ValueError(f"{file}: there are no images in {given}")
    # Relative and absolute paths have no common folder.
    plain = os.path.abspath if any(path.is_absolute() for path in paths) else os.path.normpath
    names = [plain(path) for path in paths]
    root = Path(os.path.commonpath([os.path.dirname(name) or "." for name in names]))
    return root, [Path(os.path.relpath(name, root)).as_posix() for name in names]


def _resolved(entry: str, file: Path, content: dict[str, Any]) -> Path:
    """Find a path of data.yaml; many tools write it relative to another folder."""
    base = Path(str(content.get("path") or ""))
    stripped = entry.replace("\\", "/")
    while stripped.startswith("../"):
        stripped = stripped[3:]
    for folder in (file.parent / base, file.parent, Path()):
        for name in (entry, stripped):
            if (folder / name).exists():
                return folder / name
    raise ValueError(
        f"{file}: {entry!r} does not exist, neither from {base} nor from {file.parent}: correct it "
        "there, or give the folder of images (IMAGES, --images)"
    )


def _listed(path: Path) -> Iterator[Path]:
    """Yield the images of a folder, or of a text file that lists them."""
    if path.is_dir():
        yield from (path / name for name in Pictures(path).files)
    elif is_picture(path.name):
        yield path
    else:
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                yield path.parent / line.strip()


def _labels_of(image: Path, given: Path) -> Path | None:
    """Find the labels of an image: in labels/ for images/, beside it, or in the given folder."""
    parts = list(image.with_suffix(".txt").parts)
    candidates = [Path(*parts)]
    for place in reversed([i for i, part in enumerate(parts[:-1]) if part == "images"]):
        candidates.insert(0, Path(*parts[:place], "labels", *parts[place + 1 :]))
    folder = given if given.is_dir() else given.parent
    candidates += [folder / "labels" / parts[-1], folder / parts[-1]]
    return next((path for path in candidates if path.is_file()), None)


def _rows(file: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield place and numbers of each line."""
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            values = [float(word) for word in line.split()]
        except ValueError as error:
            raise ValueError(f"{place}: {line[:60]!r} is not a list of numbers") from error
        if not all(map(math.isfinite, values)) or max(map(abs, values[1:]), default=0) > FARTHEST:
            raise ValueError(
                f"{place}: {line[:60]!r}: YOLO's coordinates are fractions of the image's width "
                "and height, 0 to 1"
            )
        yield place, values


def _add(
    dataset: Dataset,
    image: dict,
    names: dict[int, str],
    place: str,
    values: list[float],
    pose: bool,
) -> None:
    number, *rest = values
    if number not in names:
        known = ", ".join(f"{key} {name}" for key, name in names.items())
        raise ValueError(f"{place}: there is no class {number:g}: the classes are {known:.200}")
    name, width, height = names[int(number)], image["width"], image["height"]
    if pose and len(rest) > 4:
        dataset.leave_out("keypoints", place)
        rest = rest[:4]
    if len(rest) == 4:
        x, y, w, h = rest
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        dataset.add_box(image, name, box)
    elif len(rest) >= 6 and len(rest) % 2 == 0:
        sides = (width, height)
        dataset.add_polygons(image, name, [[v * sides[i % 2] for i, v in enumerate(rest)]])
    else:
        raise ValueError(
            f"{place}: {len(values)} numbers are neither class x y width height nor class and a "
            "polygon"
        )
