"""A confusion table drawn as a heat map."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from swinv2_backbone.d2.evaluation.analysis.confusion import BACKGROUND, Confusion

LONGEST_NAME = 24  # characters; longer names are cut in their middle
PERCENT_ABOVE = 99_999  # a cell has no room for more digits


def draw_confusion(confusion: Confusion, title: str) -> Figure:
    """Draw cells colored by their share of the row, with counts, or percentages if large.

    Only the most confused classes are drawn if there are many.
    """
    shown = confusion.most_confused()
    size = len(shown.rows)
    cell = 0.45 if size > 12 else 0.62  # inches
    figure = Figure(figsize=(size * cell + 4, size * cell + 2.6), layout="compressed")
    axes = figure.add_subplot()
    # The square root of shares makes confusions of a few percent visible.
    image = axes.imshow(shown.shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    percent = shown.counts.max() > PERCENT_ABOVE
    _write_cells(axes, shown, percent, fontsize=16 * cell)
    axes.set_xticks(range(size), [shorten(name) for name in shown.columns], rotation=90)
    axes.set_yticks(range(size), [shorten(name) for name in shown.rows])
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title("\n".join(_title(shown, title, percent)), fontsize=10)
    return figure


def shorten(name: str) -> str:
    """Shorten a name to fit on an axis; both ends are kept, as either may be distinctive."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _title(shown: Confusion, title: str, percent: bool) -> list[str]:
    lines = [title, "percent of the row" if percent else "counts"]
    if shown.hidden:
        lines.append(f"the {shown.classes} of {shown.classes + shown.hidden} classes most confused")
    return lines


def _write_cells(axes: Axes, shown: Confusion, percent: bool, fontsize: float) -> None:
    for row, column in zip(*shown.counts.nonzero()):
        share = shown.shares[row, column]
        axes.text(
            column,
            row,
            f"{100 * share:.1f}" if percent else str(shown.counts[row, column]),
            ha="center",
            va="center",
            color="white" if share > 0.4 else "black",
            fontsize=fontsize,
            in_layout=False,  # the text fits its cell; measuring all texts takes seconds
        )
    if shown.rows[-1] == BACKGROUND:  # background as background is not counted
        corner = len(shown.rows) - 1.5
        axes.add_patch(Rectangle((corner, corner), 1, 1, facecolor="0.85", hatch="//"))
