"""Curves of precision over recall, drawn with matplotlib."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pycocotools.cocoeval import COCOeval

from swinv2_backbone.d2.evaluation.analysis.average_precision import precision_curves
from swinv2_backbone.d2.evaluation.analysis.confusion import MOST_SHOWN
from swinv2_backbone.d2.evaluation.analysis.heat_map import shorten

IOUS = (0.5, 0.75)
DASHES = ("-", "--", ":")


def draw_precision_recall(evaluation: COCOeval, classes: list[str], title: str) -> Figure:
    """Draw one panel per IoU, with a line per class and a black one for their mean.

    Args:
        evaluation: an accumulated evaluation.
        classes: names, in the order of the category ids.
        title: the title above the panels.
    """
    curves = [precision_curves(evaluation, iou) for iou in IOUS]
    shown = _hardest(curves[0][1])
    columns = 1 if len(shown) <= 15 else 2
    figure = Figure(figsize=(11 + 2 * columns, 5), layout="constrained")
    panels = figure.subplots(1, len(IOUS), sharey=True)
    for axes, iou, (recall, precision) in zip(panels, IOUS, curves):
        _draw_panel(axes, recall, precision, shown, classes)
        axes.set_title(f"IoU {iou}")
    panels[0].set_ylabel("precision")
    hidden = len(classes) - len(shown)
    if hidden:
        title += f"; the {len(shown)} of {len(classes)} classes with the lowest AP50, mean of all"
    figure.suptitle(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", ncols=columns, fontsize=8)
    return figure


def _hardest(precision: np.ndarray) -> list[int]:
    """Return the ``MOST_SHOWN`` classes with the lowest AP50, sorted; only classes with objects."""
    there = np.flatnonzero(~np.isnan(precision[0]))
    by_score = there[np.argsort(precision[:, there].mean(axis=0), kind="stable")]
    return sorted(by_score[:MOST_SHOWN].tolist())


def _draw_panel(
    axes: Axes, recall: np.ndarray, precision: np.ndarray, shown: list[int], classes: list[str]
) -> None:
    for number, place in enumerate(shown):
        axes.plot(
            recall,
            precision[:, place],
            color=colormaps["tab10"](number % 10),
            linestyle=DASHES[number // 10 % len(DASHES)],
            linewidth=1,
            label=shorten(classes[place]),
        )
    with warnings.catch_warnings():  # without any object the mean is NaN and is not drawn
        warnings.simplefilter("ignore", RuntimeWarning)
        axes.plot(recall, np.nanmean(precision, axis=1), "k", linewidth=2.5, label="mean")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall")
    axes.grid(alpha=0.3)
