"""Names of image files that exist under another name: upload prefixes, backslashes, capitals."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from swinv2_backbone.d2.data.validation.report import Fault, Report

BACKSLASH = Fault("image files named with backslashes", "named with slashes")
CAPITALS = Fault(
    "image files whose names differ from the file's in capitals or the encoding of accents only",
    "named as the file",
)
PREFIX = Fault(
    "image files named with a folder, address or upload prefix that the image folder lacks",
    "the one file of that name taken",
)
UPLOAD = re.compile(r"[0-9a-f]{4,}-(?=.)")  # Label Studio's, before the name of an upload


class FileNames:
    """Resolves names without a file to other files of the folder.

    Args:
        folder: the folder of images.
        listed: all names of the list of images.
    """

    def __init__(self, folder: str, listed: Sequence[str]):
        self.folder, self.listed = folder, listed

    def find(self, name: str, report: Report) -> str | None:
        """Return the name of the file that ``name`` means, and report the repair.

        None if there is no such file, or if another image of the list may mean the same one.
        """
        found = self._match(name)
        if found is None or self._meant[found] > 1:
            return None
        fault = PREFIX
        if found == name.replace("\\", "/"):
            fault = BACKSLASH
        elif _key(found) == _key(name):
            fault = CAPITALS
        report.repair(fault, f"{name} (now {found})")
        return found

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """The files of the folder by their names in lower case."""
        files: dict[str, list[str]] = {}
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent, name).relative_to(self.folder).as_posix()
                files.setdefault(_key(path), []).append(path)
        return files

    @cached_property
    def _meant(self) -> Counter:
        return Counter(self._match(name) for name in self.listed)

    def _match(self, name: str) -> str | None:
        for candidate in _candidates(name):
            files = self._files.get(_key(candidate), [])
            if candidate in files:
                return candidate
            if len(files) == 1:
                return files[0]
        return None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _candidates(name: str) -> Iterator[str]:
    """Yield the relative names that a name may mean, the longest first."""
    yield name
    path = name.partition("?d=")[2] or urlsplit(name).path if "?" in name or ":/" in name else name
    for text in dict.fromkeys((path, unquote(path))):
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            yield "/".join(parts[start:])
        if parts and UPLOAD.match(parts[-1]):
            yield UPLOAD.sub("", parts[-1], count=1)
