"""Pascal VOC XML: one file per image, with boxes given as pixel indices.

VOC counts pixels from 1 and includes the last one: the first ten columns are xmin 1, xmax 10. Many
tools write corners from 0 instead: xmin 0, xmax 10. Both look alike, except at the image's edge.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from swinv2_backbone.d2.data.formats.dataset import Dataset, Source
from swinv2_backbone.d2.data.formats.pictures import Pictures
from swinv2_backbone.d2.data.formats.subsets import listed_names
from swinv2_backbone.d2.data.formats.xml import read_xml, text_of
from swinv2_backbone.images.kinds import visible_files

NO_FILE = "listed images without an XML file, read as images without objects"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object as written: corners, and a polygon [x, y, ...] or nothing."""

    name: str
    corners: tuple[float, ...]
    polygon: list[float]


def read_voc(source: Source) -> Dataset:
    """Read VOC XML; detect whether it counts pixels from 1 (the default) or from 0."""
    return _read(source, None)


def read_voc_from_one(source: Source) -> Dataset:
    """Read VOC XML that counts pixels from 1, as the VOC challenges do."""
    return _read(source, 1)


def read_voc_from_zero(source: Source) -> Dataset:
    """Read VOC XML whose corners are coordinates from 0."""
    return _read(source, 0)


def _read(source: Source, first: int | None) -> Dataset:
    pictures = Pictures(source.images or _image_folder(source.path))
    dataset = Dataset(pictures.root)
    parsed = {file: read_xml(file) for file in _files(source, pictures, dataset)}
    if first is None:  # of all lists, so that training and test set are read alike
        others = [] if source.path.is_file() else _xml_files(_folder(source.path))
        unread = _readable(file for file in others if file not in parsed)
        first = _first_pixel(chain(parsed.values(), unread), dataset)
    dataset.first_pixel = first
    for file, root in parsed.items():
        image = dataset.add_image(*_image(file, root, pictures))
        for one in _objects(file, root, dataset):
            left, top, right, bottom = one.corners
            box = [left - first, top - first, right - left + first, bottom - top + first]
            if one.polygon:
                shifted = [value - first for value in one.polygon]
                dataset.add_polygons(image, one.name, [shifted])
            else:
                dataset.add_box(image, one.name, box)
    return dataset


def _files(source: Source, pictures: Pictures, dataset: Dataset) -> list[Path]:
    """Return the XML files of the subset; listed images without one are added without objects."""
    if source.path.is_file():
        return [source.path]
    folder = _folder(source.path)
    names = listed_names(
        source,
        ("Main", "Layout", ""),
        lambda name: (folder / f"{name}.xml").is_file() or name in pictures,
    )
    if names is None:
        files = _xml_files(folder)
    else:
        files = [folder / f"{name}.xml" for name in names if (folder / f"{name}.xml").is_file()]
        for name in sorted({*names} - {file.stem for file in files}):
            if found := pictures.find(name):
                dataset.remark(NO_FILE, found)
                dataset.add_image(found, pictures.size(found))
            else:
                dataset.leave_out("listed names without a file of annotations or an image", name)
    if not files:
        raise ValueError(f"there are no .xml files in {folder}, or none that the list names")
    return files


def _folder(path: Path) -> Path:
    """Return the folder of the XML files."""
    return path / "Annotations" if (path / "Annotations").is_dir() else path


def _xml_files(folder: Path) -> list[Path]:
    return sorted(file for file in visible_files(folder) if file.suffix == ".xml")


def _readable(files: Iterable[Path]) -> Iterator[Element]:
    """Yield the content of XML files; those that are broken are another list's fault."""
    for file in files:
        with contextlib.suppress(ValueError):
            yield read_xml(file)


def _image_folder(path: Path) -> Path:
    for name in ("JPEGImages", "images"):
        for parent in (path, path.parent):
            if (parent / name).is_dir():
                return parent / name
    return path if path.is_dir() else path.parent


def _image(file: Path, root: Element, pictures: Pictures) -> tuple[str, tuple[int, int] | None]:
    """Return the name and the stated size of the image of an XML file.

    Tools keep a wrong <filename> when a file is renamed, so the XML file's own name counts too.
    """
    stated = text_of(root, "filename")
    folder = text_of(root, "folder")
    found = pictures.find(f"{folder}/{stated}") if stated else None
    found = found or pictures.find(file.stem)
    height, width = (_number(text_of(root, f"size/{side}")) for side in ("height", "width"))
    known = height > 0 and width > 0
    return found or stated or file.stem, (int(height), int(width)) if known else None


def _objects(file: Path, root: Element, dataset: Dataset) -> Iterator[VocObject]:
    """Yield the objects of a file; what is left out or changed in meaning is counted."""
    for number, element in enumerate(root.iter("object")):
        name, place = text_of(element, "name"), f"object {number} in {file.name}"
        corners = _corners(element)
        if not name:
            raise ValueError(f"{file}: object {number} has no <name>")
        if not all(map(math.isfinite, corners)):
            dataset.leave_out("objects without a <bndbox> of four numbers", place)
            continue
        if text_of(element, "difficult") == "1":
            dataset.remark("objects marked as difficult, kept as any other", place)
        for _ in element.iter("part"):
            dataset.leave_out("parts of objects (<part>)", place)
        yield VocObject(name, corners, _polygon(element))


def _corners(element: Element) -> tuple[float, ...]:
    """Return the corners of an object as written; NaN for what is no number."""
    return tuple(_number(text_of(element, f"bndbox/{corner}")) for corner in CORNERS)


def _polygon(element: Element) -> list[float]:
    """Return <polygon><x1/><y1/><x2/>..., as Roboflow and supervision write it."""
    node = element.find("polygon")
    values: dict[str, float] = {}
    for child in node if node is not None else ():
        values[child.tag.strip().lower()] = _number((child.text or "").strip())
    points: list[float] = []
    while (number := len(points) // 2 + 1) and f"x{number}" in values and f"y{number}" in values:
        points += [values[f"x{number}"], values[f"y{number}"]]
    return points if len(points) >= 6 and all(map(math.isfinite, points)) else []


def _first_pixel(roots: Iterable[Element], dataset: Dataset) -> int:
    """Return 0 if more boxes start at 0 than at 1, else 1; in VOC's own count, none starts at 0."""
    starts = [min(_corners(element)[:2]) for root in roots for element in root.iter("object")]
    zero = sum(start < 0.5 for start in starts)
    one = sum(0.5 <= start < 1.5 for start in starts)
    first = 0 if zero > one else 1
    name = "voc_from_one" if first == 0 else "voc_from_zero"
    dataset.notes.append(
        f"boxes count pixels from {first}: {zero} start at 0, {one} at 1; FORMAT {name} reads them "
        "the other way"
    )
    return first


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
