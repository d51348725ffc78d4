"""The results as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("Agg")  # no window, on any machine
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from experiments.biases import BIASES  # noqa: E402
from experiments.classify import WINDOW  # noqa: E402
from experiments.detectors import SCRATCH, SIMMIM  # noqa: E402
from experiments.plan import RATE_WIDTH, Scale, runs_of_stability, stable  # noqa: E402
from experiments.report import NAMES, Results, after_tuning, box_ap, zero_shot  # noqa: E402
from experiments.stability import FAMILIES  # noqa: E402

COLORS = {"log": "tab:red", "linear": "tab:blue", "parameterized": "tab:green"} | {
    SCRATCH: "0.6",
    SIMMIM: "tab:orange",
    "v2": "tab:red",
    "v1": "tab:blue",
}
MISTAKES = {  # by start and change
    ("log", ""): "right",
    ("log", "stretched"): "wrong\npretrained\nwindow",
    ("log", "attended"): "padding\nattended",
    ("log", "frozen"): "right",
    ("log", "frozen_stretched"): "wrong\npretrained\nwindow",
    (SIMMIM, "frozen"): "SimMIM",
    (SCRATCH, "frozen"): "random",
}
SIZE, DPI = (9, 3.6), 110


def draw(results: Results, scale: Scale, folder: Path) -> None:
    """Write transfer.png, detectors.png and stability.png."""
    for name, plot in (
        ("transfer", _transfer),
        ("detectors", _detectors),
        ("stability", _stability),
    ):
        figure, axes = pyplot.subplots(1, 2, figsize=SIZE, dpi=DPI, layout="constrained")
        plot(axes, results, scale)
        figure.savefig(folder / f"{name}.png")
        pyplot.close(figure)


def _transfer(axes: list[Axes], results: Results, scale: Scale) -> None:
    windows = [WINDOW, *scale.windows]
    for place, (ax, title) in enumerate(zip(axes, ("without tuning", "after a short tuning"))):
        for bias in BIASES:
            found = [zero_shot(results, scale, bias, WINDOW)]
            for window in scale.windows:
                take = after_tuning if place else zero_shot
                found.append(take(results, scale, bias, window))
            _line(ax, windows, found, bias)
        ax.set(title=title, xlabel="window (and size of picture / 8)", ylabel="accuracy, %")
        ax.set_xticks(windows)
    axes[0].legend(fontsize=8)


def _line(ax: Axes, x: Sequence[float], values: list[list[float]], name: str) -> None:
    ax.errorbar(
        x,
        [mean(v) for v in values],
        [stdev(v) for v in values],
        label=NAMES[name],
        color=COLORS[name],
        marker="o",
        capsize=3,
    )


def _detectors(axes: list[Axes], results: Results, scale: Scale) -> None:
    for number, start in enumerate((*BIASES, SCRATCH, SIMMIM)):
        windows = (WINDOW,) if start == SIMMIM else (WINDOW, 16)
        found = [box_ap(results, scale, start, window) for window in windows]
        _bars(axes[0], [number, number + 6][: len(found)], found, COLORS[start])
        axes[0].bar(0, 0, color=COLORS[start], label=NAMES[start])
    axes[0].set_xticks([2, 7.5], [f"window {WINDOW}", "window 16"])
    axes[0].set(title="where the backbone comes from", ylabel="box AP")
    axes[0].legend(fontsize=8, loc="lower center", ncols=2, framealpha=1)
    # With a gap before the frozen ones.
    places = [n + change.startswith("frozen") for n, (_, change) in enumerate(MISTAKES)]
    for place, (start, change) in zip(places, MISTAKES):
        _bars(axes[1], [place], [box_ap(results, scale, start, 16, change)], COLORS[start])
    axes[1].set_xticks(places, MISTAKES.values(), fontsize=7)
    axes[1].set(title="window 16: silent mistakes | backbone frozen", ylabel="box AP")


def _bars(ax: Axes, x: Sequence[float], values: list[list[float]], color: str) -> None:
    """Draw means as bars, and every seed as a dot."""
    ax.bar(x, [mean(v) for v in values], color=color, alpha=0.7)
    for place, found in zip(x, values):
        ax.plot([place] * len(found), found, "k.", markersize=4)


def _stability(axes: list[Axes], results: Results, scale: Scale) -> None:
    widths = [scale.widths[0], scale.widths[-1]]
    for family in FAMILIES:
        for width, line in zip(widths, (":", "-")):
            runs = [results[stable(family, width, scale.rates[0], seed)] for seed in scale.seeds]
            after = list(zip(*(run["after"] for run in runs)))
            label = f"{NAMES[family]}, {width} wide"
            amplitude = [mean(values) for values in after]
            axes[0].plot(
                range(1, len(after) + 1), amplitude, line, color=COLORS[family], label=label
            )
    axes[0].set(title="amplitude after training", xlabel="block", yscale="log")
    axes[0].legend(fontsize=7)
    rates = [rate for width, rate in runs_of_stability(scale) if width == RATE_WIDTH]
    for family in FAMILIES:
        found = [
            [results[stable(family, RATE_WIDTH, rate, seed)]["loss"] for seed in scale.seeds]
            for rate in rates
        ]
        _line(axes[1], rates, found, family)
    axes[1].set(title=f"loss at the end, {RATE_WIDTH} wide", xlabel="learning rate", xscale="log")
