"""The ids of a COCO-format file: read as numbers or texts, matched, and made unique."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from swinv2_backbone.d2.data.validation.report import Fault, Report

NEW_ID = Fault("annotation ids that are missing, duplicate or invalid", "replaced by new numbers")
COPY = Fault("exact copies of an annotation (all but the id)", "dropped")
ID_TYPE = Fault("ids that are texts or floats where the others are whole numbers", "made numbers")
LIMIT = 1 << 63  # NumPy's int64; a larger number is read as a float, which is not exact
WHOLE = re.compile(r"\s*-?\d{1,19}(\.0*)?\s*", re.ASCII)

Id = int | str


def whole(value: object) -> int | None:
    """Return the whole number that a value stands for: 7 for 7, 7.0, "7", "007" and "7.0".

    None for other values, and for numbers beyond int64.
    """
    number = None
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, str) and WHOLE.fullmatch(value):
        number = int(value.partition(".")[0])
    return number if number is not None and -LIMIT <= number < LIMIT else None


def uniform(ids: Sequence[object], report: Report, part: str) -> list[object]:
    """Return ids of one type: whole floats become integers, and so do texts beside numbers.

    Texts stay texts if all ids are texts, or if two ids would become the same number.

    Args:
        ids: the ids of one list of a file.
        report: takes the repairs.
        part: the name of the list.
    """
    numbers = [whole(value) for value in ids]
    distinct = len(set(numbers)) == len(set(map(repr, ids)))
    keep_texts = None in numbers or not distinct or all(isinstance(value, str) for value in ids)
    result = []
    for value, number in zip(ids, numbers):
        keep = number is None or type(value) is int or (keep_texts and isinstance(value, str))
        if not keep:
            report.repair(ID_TYPE, f"{part} {value!r:.30} (now {number})")
        result.append(value if keep else number)
    return result


class KnownIds:
    """The ids of a list, also for references of another type.

    Args:
        ids: unique ids.
        names: names that may stand for an id.
    """

    def __init__(self, ids: Iterable[Id], names: dict[str, int] | None = None):
        self.ids, self.names = set(ids), names or {}
        spelled: dict[int, list[str]] = {}
        for value in self.ids:
            if isinstance(value, str) and (number := whole(value)) is not None:
                spelled.setdefault(number, []).append(value)
        self.spelled = {number: texts[0] for number, texts in spelled.items() if len(texts) == 1}

    def find(self, value: object) -> Id | None:
        """Return the id that a reference means; None if there is no such id or more than one."""
        if type(value) in (int, str) and value in self.ids:
            return value
        number = whole(value)
        if number is not None:
            return number if number in self.ids else self.spelled.get(number)
        return self.names.get(value) if isinstance(value, str) else None


def copies_among(annotations: Mapping[int, dict], report: Report) -> list[int]:
    """Return the places of annotations that equal an earlier one in everything but the id.

    Args:
        annotations: annotations by place, in ascending order.
        report: takes the repairs.
    """
    groups: dict[tuple, list[dict]] = {}
    dropped = []
    for place, annotation in annotations.items():
        key = (annotation["image_id"], annotation["category_id"], *annotation["bbox"])
        earlier, rest = groups.setdefault(key, []), annotation | {"id": None}
        if rest in earlier:
            dropped.append(place)
            example = f"annotation {annotation.get('id')!r:.20}"
            report.repair(COPY, f"{example} (image_id {rest['image_id']})")
        earlier.append(rest)
    return dropped


def new_ids(
    places: Sequence[int], ids: Sequence[object], report: Report, *, lowest: int
) -> dict[int, int]:
    """Return new ids, by place, for annotations whose id is not a unique integer.

    Args:
        places: places of the annotations.
        ids: ids by place.
        report: takes the repairs.
        lowest: least valid id. The largest is that of int64.
    """
    seen: set[int] = set()
    replaced = []
    for place in places:
        number = ids[place]
        if isinstance(number, int) and lowest <= number < LIMIT and number not in seen:
            seen.add(number)
        else:
            replaced.append(place)
    following = max(seen, default=0) + 1
    if following + len(replaced) > LIMIT:
        following = lowest
    free = (number for number in count(following) if number not in seen)
    result = dict(zip(replaced, free))
    for place, number in result.items():
        report.repair(NEW_ID, f"{ids[place]!r:.20} (now {number})")
    return result


def whole_numbers(values: Sequence[Any]) -> np.ndarray | None:
    """Return integers as (N,) int64; None if some are none."""
    if not {*map(type, values)} <= {int}:
        return None
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return None
