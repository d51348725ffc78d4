"""The classes of a COCO-format file, matched by name with those of the model.

The model's classes are those of its training file, in the order of their category ids. Other files
may have other ids, another order or a subset of the classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

from swinv2_backbone.d2.data.validation.report import Fault, Report

RENUMBERED = Fault(
    "classes in another order, or fewer, than in training",
    "matched by name; absent classes added, so that none shifts",
)
UNUSED = Fault("categories without annotations that the training does not have", "dropped")


def class_names_of(content: dict) -> list[str]:
    """Return class names in the order of the category ids, which the model's outputs follow."""
    by_id = sorted(content["categories"], key=lambda category: category["id"])
    return [category["name"] for category in by_id]


def match_categories(
    categories: list, used: Mapping[int, int], classes: Sequence[str], report: Report
) -> tuple[list, dict[int, int]]:
    """Give a list of categories the classes of the model, in their order.

    Args:
        categories: entries of a COCO-format file.
        used: number of annotations by category id.
        classes: the class names of the model, in the order of its outputs.
        report: takes a repair for every class that is added or gets another id, and an error for
            annotated classes that the model does not have.

    Returns:
        One category for each of ``classes``, in ascending order of the ids, and the ids that
        changed (old -> new). The same list if its order is right already, or if the report has
        errors.
    """
    entries = [entry for entry in categories if _is_usable(entry)]
    known = set(classes)
    for entry in (entry for entry in entries if entry["name"] not in known):
        if count := used.get(entry["id"], 0):
            report.error(_unknown_class(classes), _described(entry, count, classes))
        else:
            report.repair(UNUSED, f"{entry['name']!r} (id {entry['id']})")
    if report.errors or class_names_of({"categories": entries}) == list(classes):
        return categories, {}
    by_name = {entry["name"]: entry for entry in entries if entry["name"] in known}
    own = {name: entry["id"] for name, entry in by_name.items()}
    return _renumbered(by_name, dict(zip(classes, _ascending_ids(classes, own))), report)


def difference(names: Sequence[str], classes: Sequence[str]) -> str:
    """Describe in words how class names differ from those of the model."""
    unknown = [name for name in names if name not in classes]
    absent = [name for name in classes if name not in names]
    words = [f"{quoted(unknown)} not among them"] if unknown else []
    words += [f"did you mean {near!r} by {name!r}?" for name, near in _similar(unknown, absent)]
    words += [f"{quoted(absent)} missing"] if absent else []
    return "; ".join(words) or "the order differs"


def quoted(names: Sequence[str], shown: int = 10) -> str:
    """Return names as a text, the first of them if there are many."""
    return ", ".join(map(repr, names[:shown])) + (", ..." if len(names) > shown else "")


def _is_usable(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("id"), int)
        and isinstance(entry.get("name"), str)
    )


def _unknown_class(classes: Sequence[str]) -> Fault:
    return Fault(
        "annotated classes that the training does not have",
        "names must be equal to the letter: rename these categories, or remove them with their "
        f"annotations; the classes of the training are {quoted(classes)}",
    )


def _described(entry: dict, count: int, classes: Sequence[str]) -> str:
    near = [f"; did you mean {near!r}?" for _, near in _similar([entry["name"]], classes)]
    noun = "annotation" if count == 1 else "annotations"
    return f"{entry['name']!r} (id {entry['id']}, {count} {noun}{''.join(near[:1])})"


def _similar(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs that differ in capitals, spaces, hyphens or underscores only."""
    return [(name, other) for name in names for other in others if _key(name) == _key(other)]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", unicodedata.normalize("NFKC", name)).casefold()


def _ascending_ids(classes: Sequence[str], own: Mapping[str, int]) -> list[int]:
    """Return ids in the order of the classes: a file's own if their order allows, else 1, 2, ...

    Results of the evaluation then have ids that the user knows.
    """
    numbered = list(range(1, len(classes) + 1))
    first = next((place for place, name in enumerate(classes) if name in own), None)
    if first is None:
        return numbered
    ids: list[int] = []
    following = own[classes[first]] - first
    for name in classes:
        ids.append(own.get(name, following))
        following = ids[-1] + 1
    ascending = all(one < other for one, other in pairwise(ids))
    return ids if ascending and ids[0] >= min(0, *own.values()) else numbered


def _renumbered(
    by_name: Mapping[str, dict], ids: Mapping[str, int], report: Report
) -> tuple[list[dict], dict[int, int]]:
    """Return the categories with the names and ids ``ids``, and the ids that changed."""
    categories, replaced = [], {}
    for name, number in ids.items():
        entry = by_name.get(name)
        if entry is None:
            report.repair(RENUMBERED, f"{name!r} is absent (id {number})")
        elif entry["id"] != number:
            report.repair(RENUMBERED, f"{name!r} (id {entry['id']}, now {number})")
            replaced[entry["id"]] = number
        categories.append((entry or {"name": name}) | {"id": number})
    return categories, replaced
