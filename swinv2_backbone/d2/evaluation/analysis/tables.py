"""The numbers of an analysis as text tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from swinv2_backbone.d2.evaluation.analysis.average_precision import METRICS
from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion
from swinv2_backbone.d2.evaluation.analysis.errors import KINDS
from swinv2_backbone.d2.evaluation.analysis.heat_map import PERCENT_ABOVE, shorten


def precision_text(table: dict) -> str:
    """Format the result of :func:`average_precisions`; "-" stands for NaN."""
    rows = [("all", table["all"]), *table["classes"].items()]
    cells = [[name, *(_number(scores[metric]) for metric in METRICS)] for name, scores in rows]
    return _aligned(cells, ["class", *METRICS])


def iou_text(by_class: dict[str, float], mean: float, only_predicted: Sequence[str] = ()) -> str:
    """Format the IoU of each class, and their mean; "-" stands for NaN, an absent class.

    Args:
        only_predicted: classes that are not in the ground truth.
    """
    cells = [["mean", _number(mean)]]
    for name, value in by_class.items():
        mark = " (only predicted)" if name in only_predicted else ""
        cells.append([f"{name}{mark}", _number(value)])
    return _aligned(cells, ["class", "IoU"])


def errors_text(table: Mapping[str, dict]) -> str:
    """Format the kinds of errors with what each costs and what to try, the costliest first."""
    rows = sorted(table.items(), key=lambda item: -item[1]["AP50_lost"])
    cells = [
        [kind, _number(one["AP50_lost"]), str(one["count"]), KINDS[kind] if one["count"] else ""]
        for kind, one in rows
    ]
    align = ("left", "right", "right", "left")
    heads = ["kind", "AP50 lost", "count", "what to try"]
    return tabulate(cells, headers=heads, colalign=align, disable_numparse=True)


def confusion_text(confusion: Confusion) -> str:
    """Format a table with numbered columns; large counts become percentages of the row."""
    shown = confusion.most_confused()
    percent = shown.counts.max(initial=0) > PERCENT_ABOVE
    values = 100 * shown.shares if percent else shown.counts
    form = "{:.1f}" if percent else "{}"
    cells = [
        [f"{number} {shorten(name)}", *(form.format(value) if value else "." for value in row)]
        for number, (name, row) in enumerate(zip(shown.rows, values.tolist()), 1)
    ]
    last = len(shown.columns)
    heads = [str(number) for number in range(1, last + 1)]
    if shown.rows != shown.columns:
        heads[-1] = shown.columns[-1]
        cells[-1][0] = shown.rows[-1]
    notes = ["rows: truth, columns: predicted" + (", percent of the row" if percent else "")]
    if shown.hidden:
        notes.append(f"the {shown.classes} classes most confused; {shown.hidden} more in the JSON")
    return "\n".join(["; ".join(notes), _aligned(cells, ["", *heads])])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _aligned(cells: list[list[str]], heads: list[str]) -> str:
    align = ["left"] + ["right"] * (len(heads) - 1)
    return tabulate(cells, headers=heads, colalign=align, disable_numparse=True)
