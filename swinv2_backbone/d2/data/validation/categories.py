"""The categories of a COCO-format file: their ids, their names and a root that is no class."""

from __future__ import annotations

from collections.abc import Iterable

from swinv2_backbone.d2.data.validation.annotations import is_complete
from swinv2_backbone.d2.data.validation.ids import ID_TYPE, whole
from swinv2_backbone.d2.data.validation.images import repeated
from swinv2_backbone.d2.data.validation.report import Fault, Report

NO_CATEGORIES = Fault("no categories", "list the classes under 'categories'")
CATEGORY_TWICE = Fault("duplicate category ids or names", "give every class one id and one name")
TEXT_ID = Fault(
    "category ids that are not whole numbers below 2^63",
    "number the categories, also in the annotations",
)
ROOT = Fault(
    "first category without annotations that is the supercategory of all others (Roboflow's root)",
    "dropped; NUM_CLASSES is without it",
)


def check_categories(entries: list, used: Iterable, report: Report) -> list[dict]:
    """Return the usable categories, repaired in copies.

    Args:
        entries: the list "categories".
        used: the ``category_id`` of the annotations, as the file has them; read only if a category
            may be such a root.
        report: takes the findings.
    """
    kinds = {"id": (int, float, str), "name": str}
    found = [
        entry
        for number, entry in enumerate(entries)
        if is_complete(entry, "categories", number, kinds, report)
    ]
    ids = [whole(entry["id"]) for entry in found]
    for entry, number in zip(found, ids):
        if number is None:
            report.error(TEXT_ID, f"{entry['id']!r:.40} ({entry['name']})")
        elif type(entry["id"]) is not int:
            report.repair(ID_TYPE, f"categories {entry['id']!r:.30} (now {number})")
    found = [
        entry if type(entry["id"]) is int else entry | {"id": number}
        for entry, number in zip(found, ids)
        if number is not None
    ]
    for key in ("id", "name"):
        for value in repeated(entry[key] for entry in found):
            report.error(CATEGORY_TWICE, f"{key} {value}")
    if not entries:
        report.error(NO_CATEGORIES, "the list is empty")
    root = _root(found, used)
    if root is None:
        return found
    report.repair(ROOT, f"{root['name']} (id {root['id']})")
    return [entry for entry in found if entry is not root]


def _root(entries: list[dict], used: Iterable) -> dict | None:
    """Return the category of the lowest id if it is no class of its own."""
    if len(entries) < 2:
        return None
    root, *others = sorted(entries, key=lambda entry: entry["id"])
    own = root.get("supercategory")
    if own not in (None, "", "none", root["name"]) or any(
        entry.get("supercategory") != root["name"] for entry in others
    ):
        return None
    unused = all(whole(value) != root["id"] and value != root["name"] for value in used)
    return root if unused else None
