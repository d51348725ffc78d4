"""The annotations of a COCO-format file, checked in pieces, and what was repaired in them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from swinv2_backbone.d2.data.storage.columns import Columns, columns_of
from swinv2_backbone.d2.data.validation.annotations import AnnotationChecker
from swinv2_backbone.d2.data.validation.columns import ColumnsBuilder
from swinv2_backbone.d2.data.validation.ids import copies_among, new_ids, whole_numbers
from swinv2_backbone.d2.data.validation.sound import plainly_sound
from swinv2_backbone.d2.data.validation.source import Source, entries


class CheckedAnnotations:
    """The annotations of a file after the check.

    Args:
        source: the file.
        checker: its checker.

    Attributes:
        total: number of annotations in the file.
        changes: repaired annotations by their place in the file; None for those that are dropped.
        ids: ids as the file has them.
        new_ids: ids that were replaced, by place.
        set_columns: columns for the checks of the whole set.
        parts: columns of the kept annotations, in pieces.
    """

    def __init__(self, source: Source, checker: AnnotationChecker):
        self.source, self.checker = source, checker
        self.image_rows = {key: row for row, key in enumerate(checker.images)}
        self.category_rows = {key: row for row, key in enumerate(sorted(checker.categories))}
        sizes = [(one["height"] or 0, one["width"] or 0) for one in checker.images.values()]
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.total = 0
        self.changes: dict[int, dict | None] = {}
        self.ids: list[Any] = []
        self.new_ids: dict[int, int] = {}
        self.parts: list[Columns] = []
        self._places: list[np.ndarray] = []  # of the annotations in ``parts``
        builder = ColumnsBuilder(checker, list(self.category_rows), self.sizes, self._name)
        with _no_garbage_collection():
            for piece in source.pieces("annotations"):
                self._check(piece, builder)
        self.set_columns = builder.finish()

    def __iter__(self) -> Iterator[dict]:
        """Yield the kept annotations, repaired."""
        for place, annotation in enumerate(entries(self.source, "annotations")):
            kept = self.changes.get(place, annotation)
            if kept is not None:
                yield kept | {"id": self.new_ids[place]} if place in self.new_ids else kept

    def used_categories(self) -> Counter[int]:
        """Return the number of kept annotations by category id."""
        counts: Counter[int] = Counter()
        ids = list(self.category_rows)
        for part in self.parts:
            known = part.category[part.category >= 0]
            for key, count in zip(ids, np.bincount(known, minlength=len(ids)).tolist()):
                counts[key] += count
        return counts

    def has_objects(self) -> bool:
        """Return True if an annotation is kept that is not a crowd."""
        return any((part.crowd != 1).any() for part in self.parts)

    def drop_copies(self) -> None:
        """Drop annotations that equal an earlier one in everything but the id."""
        places = self._similar()
        if not len(places):
            return
        wanted = set(places.tolist())
        similar = {
            place: self.changes.get(place) or annotation
            for place, annotation in enumerate(entries(self.source, "annotations"))
            if place in wanted
        }
        dropped = copies_among(similar, self.checker.report)
        self.changes |= dict.fromkeys(dropped)
        for at, place in enumerate(self._places):
            keep = ~np.isin(place, list(dropped))
            self.parts[at], self._places[at] = self.parts[at].select(keep), place[keep]

    def number(self, lowest: int) -> None:
        """Give the kept annotations unique ids of at least ``lowest``."""
        places = np.concatenate(self._places) if self._places else np.zeros(0, np.int64)
        ids = whole_numbers(self.ids)
        if ids is not None and len(places):
            kept = ids[places]
            if kept.min() >= lowest and len(np.unique(kept)) == len(kept):
                return
        self.new_ids = new_ids(places.tolist(), self.ids, self.checker.report, lowest=lowest)

    def _check(self, piece: list, builder: ColumnsBuilder) -> None:
        start = self.total
        columns = columns_of(piece, self.image_rows, self.category_rows)
        sound = np.zeros(len(piece), bool)
        if columns is not None:
            sound = plainly_sound(piece, columns, self.sizes, self.checker)
        self.total += len(piece)
        self.ids += [one.get("id") if isinstance(one, dict) else None for one in piece]
        changed = False
        for at in np.flatnonzero(~sound).tolist():
            repaired = self.checker.check(start + at, piece[at])
            builder.add(start + at, piece[at], repaired)
            if repaired is not piece[at]:
                self.changes[start + at], changed = repaired, True
        if columns is not None:
            builder.add_sound(columns.select(sound), start + np.flatnonzero(sound))
        places = np.arange(len(piece))
        if changed:
            kept = [self.changes.get(start + at, one) for at, one in enumerate(piece)]
            places = np.array([at for at, one in enumerate(kept) if one is not None], np.int64)
            usable = [one for one in kept if one is not None]
            columns = columns_of(usable, self.image_rows, self.category_rows)
        if columns is None:
            assert self.checker.report.errors, "only a faulty annotation does not fit into columns"
            return
        self.parts.append(columns)
        self._places.append(start + places)

    def _similar(self) -> np.ndarray:
        """Return the places of annotations with the image, class and box of another one."""
        if not self.parts:
            return np.zeros(0, np.int64)
        image, category, box, place = (
            np.concatenate(each)
            for each in (
                [part.image for part in self.parts],
                [part.category for part in self.parts],
                [part.box for part in self.parts],
                self._places,
            )
        )
        bits = np.ascontiguousarray(box + 0.0).view(np.uint64)  # + 0.0: -0 and 0 are equal
        key = image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + category.astype(np.uint64)
        for column in bits.T:
            key = (key ^ column) * np.uint64(0x2545F4914F6CDD1D) ^ (key >> np.uint64(29))
        _, row, count = np.unique(key, return_inverse=True, return_counts=True)
        return place[count[row] > 1]

    def _name(self, place: int) -> str:
        annotation = next(islice(entries(self.source, "annotations"), place, None))
        image = self.checker.images[self.checker.image_ids.find(annotation["image_id"])]  # type: ignore[index]  # known, as it has a row
        return f"annotation {self.ids[place]!r:.20} in {image['file_name']}"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, which would search millions of new lists for cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
