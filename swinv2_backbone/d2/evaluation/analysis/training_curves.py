"""Curves of losses, learning rate and evaluations over a run, drawn with matplotlib."""

from __future__ import annotations

import logging
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from swinv2_backbone.d2.engine.metrics import read_lines

logger = logging.getLogger(__name__)
SCORES = ("AP", "AP50", "AP75", "mIoU", "PQ")  # the last part of the name of an evaluation
Series = dict[int, float]  # iteration -> value


def read_metrics(file: Path) -> dict[str, Series]:
    """Read Detectron2's metrics.json; return the values of each metric by iteration.

    A run that was resumed by other code repeats iterations; the values written last are used. A run
    that was killed can leave an incomplete last line, which is left out.

    Raises:
        ValueError: another line is not a JSON object with an iteration.
    """
    lines = read_lines(file)
    if lines and lines[-1][1] is None:
        logger.warning(f"{file}: the last line is incomplete, and left out")
        lines.pop()
    series: dict[str, Series] = {}
    for number, (_, entry) in enumerate(lines, 1):
        if entry is None:
            raise ValueError(
                f"line {number} of {file} is not a JSON object with an iteration: remove it"
            )
        iteration = entry.pop("iteration")
        for name, value in entry.items():
            series.setdefault(name, {})[iteration] = value
    return {name: dict(sorted(values.items())) for name, values in series.items()}


def draw_training(series: dict[str, Series]) -> Figure | None:
    """Draw one panel each for losses, learning rate and evaluations, if present.

    Returns:
        The figure; None if there is nothing to draw.
    """
    groups = {"loss": _losses(series), "learning rate": _chosen(series, ("lr",))}
    groups["evaluation, in percent"] = _chosen(series, SCORES)
    groups = {title: names for title, names in groups.items() if names}
    if not groups:
        return None
    figure = Figure(figsize=(10, 3.4 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (title, names) in zip(panels, groups.items()):
        _draw_panel(axes, {name: series[name] for name in names})
        axes.set_ylabel(title)
    if "loss" in groups and min(min(series[name].values()) for name in groups["loss"]) > 0:
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")  # 0.1 rather than a power of 10
        panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[-1].set_xlabel("iteration")
    return figure


def _losses(series: dict[str, Series]) -> list[str]:
    parts = sorted(name for name in series if name.startswith("loss"))
    return [name for name in ("total_loss",) if name in series] + parts


def _chosen(series: dict[str, Series], endings: tuple[str, ...]) -> list[str]:
    return sorted(name for name in series if name.rsplit("/", 1)[-1] in endings)


def _draw_panel(axes: Axes, series: dict[str, Series]) -> None:
    for name, values in series.items():
        marker = "o" if len(values) < 30 else None  # a single value would draw no line
        is_total = name == "total_loss"
        axes.plot(
            list(values),
            list(values.values()),
            marker=marker,
            markersize=3,
            label=name,
            color="black" if is_total else None,
            linewidth=2 if is_total else None,
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
