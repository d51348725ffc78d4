"""The files of a folder of images, found by the names that annotation tools give them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from swinv2_backbone.images.kinds import is_image, visible_files
from swinv2_backbone.images.reading import image_size

UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's prefix of uploaded files


class Pictures:
    """The image files below a folder, which is searched once.

    Args:
        root: the folder.

    Raises:
        ValueError: it is not a folder.
    """

    def __init__(self, root: Path):
        if not root.is_dir():
            raise ValueError(f"the folder of images {str(root)!r} does not exist")
        self.root = root

    @cached_property
    def files(self) -> list[str]:
        """Names relative to the folder, sorted, with slashes."""
        return sorted(_files_below(self.root))

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for file in self.files:
            found[PurePosixPath(file).name].append(file)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for file in self.files:
            found[PurePosixPath(file).stem].append(file)
        return found

    def __contains__(self, name: str) -> bool:
        """Return True if a file has this name, with or without its extension."""
        bare = PurePosixPath(name).name
        return bare in self._by_name or bare in self._by_stem

    def find(self, name: str) -> str | None:
        """Return the file that an annotation tool calls ``name``, relative to the folder.

        Tried in this order: the whole name, its last part, that part without an upload prefix, and
        the name without its extension. A name that matches several files matches none.
        """
        path = PurePosixPath(unquote(name).replace("\\", "/"))
        if not path.is_absolute() and (self.root / path).is_file():
            return os.path.normpath(path).replace(os.sep, "/")
        bare = UPLOAD.sub("", path.name)
        for found in (
            self._by_name.get(path.name),
            self._by_name.get(bare),
            self._by_stem.get(path.stem),
            self._by_stem.get(path.name),  # written without an extension
        ):
            if found and len(near := _nearest(found, path)) == 1:
                return near[0]
        return None

    def size(self, name: str) -> tuple[int, int]:
        """Return (H, W) of an image after its EXIF rotation.

        Raises:
            OSError: it is missing or damaged.
        """
        return image_size(self.root / name)


def _nearest(files: list[str], path: PurePosixPath) -> list[str]:
    """Return the files that share the longest tail of folders with ``path``."""

    def shared(file: str) -> int:
        count = 0
        for one, other in zip(reversed(PurePosixPath(file).parts[:-1]), reversed(path.parts[:-1])):
            if one != other:
                break
            count += 1
        return count

    most = max(map(shared, files))
    return [file for file in files if shared(file) == most]


def _files_below(root: Path) -> Iterator[str]:
    for file in visible_files(root):
        if is_picture(file.name):
            yield file.relative_to(root).as_posix()


def is_picture(name: str) -> bool:
    """Return True if a file name has the extension of an image."""
    return is_image(Path(name))
