"""A COCO-format file to check: in memory, or read in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from swinv2_backbone.d2.data.storage.json_lists import JsonLists

PARTS = ("images", "annotations", "categories")


class Source(Protocol):
    """The lists of a COCO-format file, and its other values.

    ``JsonLists`` reads them from a file.
    """

    @property
    def values(self) -> Mapping[str, Any]:
        """The values that are not lists."""

    def __getitem__(self, key: str) -> list:
        """Return a whole list."""

    def pieces(self, key: str) -> Iterator[list]:
        """Yield the entries of a list, some at a time."""


class InMemory:
    """A parsed file as a source."""

    def __init__(self, content: Mapping[str, Any]):
        self.content = content

    @property
    def values(self) -> Mapping[str, Any]:
        return {key: one for key, one in self.content.items() if not isinstance(one, list)}

    def __getitem__(self, key: str) -> list:
        return self.content[key]

    def pieces(self, key: str) -> Iterator[list]:
        if self.content[key]:
            yield self.content[key]


def entries(source: Source, key: str) -> Iterator[Any]:
    """Yield the entries of a list one by one."""
    for piece in source.pieces(key):
        yield from piece


def used_categories(source: Source) -> Iterator[int | float | str]:
    """Yield the ``category_id`` of the annotations, as the file has them."""
    for annotation in entries(source, "annotations"):
        key = annotation.get("category_id") if isinstance(annotation, dict) else None
        if isinstance(key, (int, float, str)):
            yield key


def open_coco(json_file: str) -> JsonLists:
    """Open a COCO-format file; raise ValueError unless it has the three lists of the format."""
    try:
        content = JsonLists(json_file)
    except OSError as error:
        raise ValueError(f"JSON {json_file!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(
            f"JSON {json_file!r} is not JSON, or incomplete: {error}. Copy or write it again"
        ) from error
    absent = [part for part in PARTS if part not in content]
    if absent:
        raise ValueError(f"JSON {json_file!r} is not COCO-format: no list of {', '.join(absent)}")
    return content
