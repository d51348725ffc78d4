"""A bar chart of how many times faster each candidate is than the fastest eager peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window, on any machine
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from benchmarking.figures import comparison_figures  # noqa: E402
from benchmarking.machine import one_line  # noqa: E402
from benchmarking.peers import PEERS  # noqa: E402
from benchmarking.report import title_of  # noqa: E402
from benchmarking.results import COMPARISON, Content  # noqa: E402
from benchmarking.settings import Setting  # noqa: E402
from benchmarking.timing import Spread  # noqa: E402

WIDTH, DPI = 12.5, 80  # inches, for the longest title, and dots per inch: 1000 pixels
BAR, GAP = 0.22, 0.4  # inches: height of a bar, and gap between settings
MANY = 8  # settings, above which eager peers are left out
OURS_COLOR = "tab:red"
PEER_COLORS = dict(zip(PEERS, ("tab:blue", "tab:orange", "tab:green", "tab:purple")))

Ratios = dict[str, Spread]


def draw(results: Sequence[Content], path: Path) -> None:
    """Write a PNG of all comparisons that have an eager peer, with a group of bars for each.

    If there are many, the eager peers are left out, whose ratios are at most 1.

    Raises:
        ValueError: No result has an eager peer.
    """
    groups = {_title(one): bars(one) for one in results}
    groups = {title: ratios for title, ratios in groups.items() if ratios}
    if not groups:
        raise ValueError("there is nothing to draw: no comparison has a peer that is not compiled")
    if len(groups) > MANY:
        groups = {title: _without_eager_peers(ratios) for title, ratios in groups.items()}
    height = 1.4 + sum(GAP + BAR * len(ratios) for ratios in groups.values())
    figure, axes = pyplot.subplots(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    _draw_groups(axes, groups)
    machines = dict.fromkeys(one_line(one["machine"]) for one in results)
    axes.set_title("\n".join(machines), fontsize=9)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def _title(result: Content) -> str:
    return f"{result['section']}: {title_of(Setting.from_json(result['setting']))}"


def bars(result: Content) -> Ratios:
    """Return the ratio of every candidate; empty unless an eager peer was compared."""
    if result["kind"] != COMPARISON:
        return {}
    found = {name: one.over_eager for name, one in comparison_figures(result).items()}
    return {name: one.spread for name, one in found.items() if one is not None}


def _without_eager_peers(ratios: Ratios) -> Ratios:
    return {name: one for name, one in ratios.items() if name not in PEERS}


def _draw_groups(axes: Axes, groups: Mapping[str, Ratios]) -> None:
    """Draw groups from the top down, with bars labeled by candidate and ratio."""
    y, ticks = 0.0, {}
    for title, ratios in groups.items():
        y -= GAP
        # Excluded from the layout, because the longest title would squeeze the axes.
        label = axes.text(0, y - BAR / 2, title, va="bottom", fontsize=9, weight="bold")
        label.set_in_layout(False)
        for name, ratio in ratios.items():
            y -= BAR
            ticks[y] = name
            _draw_bar(axes, y, name, ratio)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=9)
    axes.set_ylim(y - BAR, 0)
    widest = max(ratio.high for ratios in groups.values() for ratio in ratios.values())
    axes.set_xlim(0, 1.12 * widest)  # with room for the last number
    axes.set_xlabel("times faster than the fastest eager peer (median and quartiles)", fontsize=10)


def _draw_bar(axes: Axes, y: float, name: str, ratio: Spread) -> None:
    middle = ratio.median
    error = [[middle - ratio.low], [ratio.high - middle]]
    axes.barh(y, middle, 0.8 * BAR, color=_color(name), xerr=error, ecolor="0.3")
    axes.text(ratio.high, y, f"  {middle:.2f}", va="center", fontsize=9)


def _color(name: str) -> str:
    """Return the color of a publisher, for all kernels and variations."""
    publisher = name.partition("+")[0].partition(":")[0]
    return PEER_COLORS.get(publisher, OURS_COLOR)
