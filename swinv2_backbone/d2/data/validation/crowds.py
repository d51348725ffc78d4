"""The crowds of a COCO-format file: their share, and whether they can be meant as crowds.

COCO's ``iscrowd`` 1 marks a region of objects that nobody separated. Such an annotation is neither
trained on nor scored. Some exporters write it for single objects, because pycocotools once took
RLE masks for crowds alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb

import numpy as np

from swinv2_backbone.d2.data.validation.report import Fault, Report

CROWD_MODES = ("check", "ignore", "objects")
UNMASKED, POLYGONS, RLE = range(3)  # forms of a mask
FORMS = ("without mask", "as polygons", "as RLE")

# In COCO, about 1 % of the annotations of a class are crowds, and all of these are RLE. A set is
# stopped where a class has at least MOST crowds, and so many that at most one in a million classes
# of its size would have them if HONEST of all annotations were crowds. That is 5 of 5 annotations,
# 9 of 20 or 25 of 100; but not 1 of 3, nor 4 of 4, which small honest sets have by chance.
MOST = 0.25
HONEST = 0.05
CHANCE = 1e-6

READ_AS_OBJECTS = (
    "if they are single objects, read them as such: DATASETS.CUSTOM.CROWDS objects "
    "(crowds='objects' of register_coco)"
)
CROWDS = Fault("crowds (iscrowd 1), which are neither trained on nor scored", READ_AS_OBJECTS)
TOO_MANY_CROWDS = Fault(
    "crowds (iscrowd 1) of classes with more crowds than sets in COCO's format have",
    "supervision's as_coco writes iscrowd 1 for each object with a hole or in several parts, and "
    "CVAT's COCO 1.0 for each mask of a brush or of SAM; they would be neither trained on nor "
    f"scored; {READ_AS_OBJECTS}; if they are crowds, confirm it: DATASETS.CUSTOM.CROWDS ignore "
    "(crowds='ignore')",
)


def check_crowds(
    report: Report,
    category: np.ndarray,
    iscrowd: np.ndarray,
    form: np.ndarray,
    names: Mapping[int, str],
    *,
    mode: str,
) -> None:
    """Report the share of crowds; an implausible share is an error.

    Args:
        report: takes the findings.
        category: category ids, (N,) int.
        iscrowd: which annotations are crowds, (N,) bool.
        form: the forms of the masks, (N,): UNMASKED, POLYGONS or RLE.
        names: class names by category id.
        mode: "check"; "ignore" to accept any share of crowds. Nothing is reported for "objects".
    """
    crowds = int(iscrowd.sum())
    if not crowds or mode == "objects":
        return
    ids, row = np.unique(category, return_inverse=True)
    total = np.bincount(row, minlength=len(ids))
    by_form = [np.bincount(row[iscrowd & (form == each)], minlength=len(ids)) for each in range(3)]
    order = np.argsort(-sum(by_form) / total, kind="stable")
    words = {}
    for place in order:
        if any(counts := [number[place] for number in by_form]):
            name = names.get(int(ids[place]), str(ids[place]))
            words[place] = _words(name, counts, total[place])
    # Boxes alone may be groups in any number, as in Open Images.
    masked = by_form[POLYGONS] + by_form[RLE]
    suspects = [place for place in words if _too_many(int(masked[place]), int(total[place]))]
    if not suspects and _too_many(int(masked.sum()), int(total.sum())):
        suspects = list(words)
    if suspects and mode == "check":
        for place in suspects:
            report.error(TOO_MANY_CROWDS, words[place], int(masked[place]))
        return
    report.note(CROWDS, _words("in all", [n.sum() for n in by_form], total.sum()), crowds)
    for text in words.values():
        report.note(CROWDS, text, 0)


def _too_many(crowds: int, total: int) -> bool:
    if not crowds or crowds < MOST * total:
        return False
    if total > 100:  # then a share of MOST is always beyond CHANCE
        return True
    odds = (
        comb(total, count) * HONEST**count * (1 - HONEST) ** (total - count)
        for count in range(crowds, total + 1)
    )
    return sum(odds) < CHANCE


def _words(name: str, counts: Sequence[int], total: int) -> str:
    """Format a share of crowds, such as "fig 3 of 150 (2.0%: 3 RLE)"."""
    crowds = int(sum(counts))
    forms = [f"{count} {FORMS[form]}" for form, count in enumerate(counts) if count]
    return f"{name} {crowds} of {total} ({crowds / total:.1%}: {', '.join(forms)})"
