"""The format of annotation files, found from their names and first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from swinv2_backbone.d2.data.formats.coco import ROBOFLOW
from swinv2_backbone.d2.data.formats.pictures import is_picture
from swinv2_backbone.images.kinds import visible_files

HEAD = 1 << 20  # bytes at each end of a JSON file that are searched
TASK_WORDS = (b'"annotations"', b'"completions"', b'"original_width"', b'"data"')
NUMBER = re.compile(r"[-+.\de]+")
SEVERAL = 20  # files of a folder to open
LOOKED_AT = 2000  # file names to inspect


def detect(path: Path) -> list[str]:
    """Return the names of all formats that a file or folder may have, without repetitions.

    Raises:
        ValueError: the path does not exist, or is an archive.
    """
    if path.is_dir():
        found = list(dict.fromkeys(_formats_of_folder(path)))
        return found or (["instances"] if _only_label_pictures(path) else [])
    if not path.is_file():
        raise ValueError(f"{str(path)!r} does not exist")
    suffix = path.suffix.lower()
    if suffix in (".zip", ".tar", ".gz", ".7z"):
        raise ValueError(f"{path} is an archive: unpack it, and give its folder")
    if suffix in (".yaml", ".yml"):
        return ["yolo"]
    if suffix == ".xml":
        return _format_of_xml(path)
    return _format_of_json(path) or (["coco"] if suffix == ".json" else [])


def _formats_of_folder(folder: Path) -> Iterator[str]:
    if (folder / ROBOFLOW).is_file() or any(folder.glob(f"*/{ROBOFLOW}")):
        yield "roboflow"
        return
    if _has_yolo_labels(folder) or any(
        b"names" in file.read_bytes() for file in sorted(folder.glob("*.y*ml"))
    ):
        yield "yolo"
    if any((folder / "SegmentationObject").glob("*.png")):
        yield "voc_masks"
    if (folder / "annotations.xml").is_file():
        yield from _format_of_xml(folder / "annotations.xml")
    elif first := _first(folder, ".xml"):
        yield from _format_of_xml(first)
    for file in islice(_files(folder, ".json"), SEVERAL):
        yield from _format_of_json(Path(file))


def _format_of_xml(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if b"<annotations" in head:
        return ["cvat"]
    return ["voc"] if b"<annotation" in head else []


def _format_of_json(path: Path) -> list[str]:
    """Look at both ends of a JSON file, which may be large."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(path.stat().st_size - HEAD, 0))
        ends = head + file.read(HEAD)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" and any(word in ends for word in TASK_WORDS):
        return ["label_studio"]
    if start not in (b"[", b"{") and path.suffix.lower() != ".json":
        return []
    if b'"segments_info"' in ends:
        return ["panoptic"]
    if b'"shapes"' in ends and b'"images"' not in ends:
        return ["labelme"]
    # Other files lie beside annotations, such as the notes.json of Label Studio's YOLO export.
    return ["coco"] if b'"images"' in ends or b'"annotations"' in ends else []


def _only_label_pictures(folder: Path) -> bool:
    names = list(islice(_files(folder), LOOKED_AT))
    pictures = [name for name in names if is_picture(name)]
    return bool(pictures) and all(
        name.lower().endswith((".png", ".tif", ".tiff")) for name in pictures
    )


def _has_yolo_labels(folder: Path) -> bool:
    """Return True if classes.txt is beside text files of numbers."""
    if not (folder / "classes.txt").is_file():
        return False
    for file in islice(_files(folder, ".txt"), SEVERAL):
        words = Path(file).read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
        if len(words) >= 5 and all(NUMBER.fullmatch(word) for word in words):
            return True
    return False


def _first(folder: Path, suffix: str) -> Path | None:
    found = next(_files(folder, suffix), None)
    return None if found is None else Path(found)


def _files(folder: Path, *suffixes: str) -> Iterator[str]:
    """Yield the paths of files below a folder, in a fixed order, with one of the suffixes."""
    for file in visible_files(folder):
        if not suffixes or file.name.lower().endswith(suffixes):
            yield str(file)
