"""The ids of annotations in a COCO-format file, made unique."""

from __future__ import annotations

from swinv2_backbone.d2.data.validation.report import Fault, Report

NEW_ID = Fault("annotation ids that are missing, duplicate or invalid", "replaced by new numbers")


def numbered(annotations: list[dict], report: Report, *, lowest: int) -> list[dict]:
    """Give annotations unique integer ids of at least ``lowest``; valid ids are kept."""
    seen: set[int] = set()
    replaced = []
    for position, annotation in enumerate(annotations):
        number = annotation.get("id")
        if isinstance(number, int) and number >= lowest and number not in seen:
            seen.add(number)
        else:
            replaced.append(position)
    if not replaced:
        return annotations
    result, following = list(annotations), max(seen, default=0) + 1
    for number, position in enumerate(replaced, following):
        report.repair(NEW_ID, f"{annotations[position].get('id')!r:.20} (now {number})")
        result[position] = annotations[position] | {"id": number}
    return result
