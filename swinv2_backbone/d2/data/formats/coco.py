"""COCO-format files and their image folders, located in the folders that tools write."""

from __future__ import annotations

import json
import re
from pathlib import Path

from swinv2_backbone.d2.data.formats.dataset import Source
from swinv2_backbone.d2.data.formats.subsets import NAMES, chosen
from swinv2_backbone.images.kinds import is_hidden

HEAD = 1 << 20  # bytes of a file that are searched for the first file name
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
ROBOFLOW = "_annotations.coco.json"


def locate_coco(source: Source) -> tuple[Path, Path]:
    """Return the COCO file of a source and the folder of its images.

    Raises:
        ValueError: the folder has no such file, or several.
    """
    path = source.path
    if path.is_file():
        return path, source.images or _images_of(path)
    found = (sorted(folder.glob("*.json")) for folder in (path, path / "annotations"))
    own, below = ([file for file in some if not is_hidden(file.name)] for some in found)
    files = own or below
    if not files:
        raise ValueError(f"there is no COCO file in {path}")
    if len(files) > 1:
        words = NAMES.get(source.subset, (source.subset,) if source.subset else ())
        fitting = [f for f in files if any(word in f.stem for word in words)]
        files = fitting or files
    if len(files) > 1:
        raise ValueError(f"{path} has several files: name one of {', '.join(map(str, files))}")
    return files[0], source.images or _images_of(files[0])


def locate_roboflow(source: Source) -> tuple[Path, Path]:
    """Return the file of Roboflow's folder, or of one of its subfolders, and that folder."""
    folder = source.path if source.path.is_dir() else source.path.parent
    if not (folder / ROBOFLOW).is_file():
        available = [file.parent.name for file in sorted(folder.glob(f"*/{ROBOFLOW}"))]
        if not available:
            raise ValueError(f"there is no {ROBOFLOW} in {folder} or its folders")
        folder = folder / chosen(source.subset, available, folder)
    return folder / ROBOFLOW, source.images or folder


def _images_of(file: Path) -> Path:
    """Return the image folder of a COCO file: the first candidate with the first image in it."""
    with file.open("rb") as content:
        first = FILE_NAME.search(content.read(HEAD))
    part = file.stem.rpartition("_")[2]  # instances_train2017.json, train2017/
    folders = [file.parent, *(up / "images" for up in (file.parent, file.parent.parent))]
    folders += [folder / part for folder in (*folders, file.parent.parent)]
    for folder in folders:
        if first and (folder / json.loads(first[1])).is_file():
            return folder
    raise ValueError(f"give the folder of the images of {file} (IMAGES, --images)")
