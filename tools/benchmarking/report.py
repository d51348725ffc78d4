"""Results as text: lines for a terminal, and markdown tables by machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarking.figures import (
    Compared,
    Ratio,
    comparison_figures,
    detector_figures,
    int8_figures,
    scaling_figures,
)
from benchmarking.machine import one_line
from benchmarking.results import ATTENTION, COMPARISON, DETECTOR, INT8, SCALING, Content
from benchmarking.settings import Setting, size_name
from benchmarking.timing import Spread

COLUMNS = (
    *("candidate", "ms", "quartiles", "x fastest eager peer", "x fastest compiled peer"),
    *("floor / actual", "peak memory MB", "/ leanest peer", "difference"),
)
HOW_TO_READ = """\
Milliseconds are medians. "x" is the number of times that a candidate is faster than a peer: the
median of the ratios of each round, with their quartiles in brackets. The floor is the time of the
matrix products alone. Peak memory is the memory of one run in addition to weights and images; "/"
divides it by that of the leanest peer. "Difference" is the largest difference of a feature from the
readable reference, and the size at which it was taken: peers attend to padding, so they are
compared at a size without padding.
"""


def tables(results: Sequence[Content]) -> str:
    """Return markdown of all results: by machine, then by section, in the order of the results."""
    lines = [HOW_TO_READ]
    for machine in dict.fromkeys(one_line(result["machine"]) for result in results):
        here = [result for result in results if one_line(result["machine"]) == machine]
        lines += [f"## {machine}", ""]
        for section in dict.fromkeys(result["section"] for result in here):
            lines += [f"### {section}", ""]
            own = [result for result in here if result["section"] == section]
            if len(own) > 1 and own[0]["kind"] == COMPARISON:
                lines += ["Ours at all settings, in short:", "", summary_table(own), ""]
            lines += [line for one in own for line in (TABLES[one["kind"]](one), "")]
    return "\n".join(lines)


def summary_table(results: Iterable[Content]) -> str:
    """Return a row for each of our candidates in several comparisons, with the fastest peers."""
    columns = ("setting", "candidate", "ms", "x fastest eager peer", "x fastest compiled peer")
    rows = []
    for result in results:
        title = title_of(Setting.from_json(result["setting"])).partition(", ")[2]
        for name, found in comparison_figures(result).items():
            if name.startswith("ours"):
                cells = _row(name, result["candidates"][name], found)
                peers = _named(found.over_eager), _named(found.over_compiled)
                rows.append((title, name, cells[1], *peers, *cells[5:8]))
    return markdown((*columns, *COLUMNS[5:8]), rows)


def _unnamed(ratio: Ratio | None) -> str:
    return "-" if ratio is None else with_quartiles(ratio.spread)


def _named(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{with_quartiles(ratio.spread)} {ratio.of}"


def comparison_table(result: Content) -> str:
    """Return the candidates of one setting, with the floor below them."""
    contents = result["candidates"]
    rows = [_row(name, contents[name], one) for name, one in comparison_figures(result).items()]
    rows.append(("floor", *_milliseconds(Spread.of(result["floor"])), *[""] * 6))
    title = title_of(Setting.from_json(result["setting"]))
    return _titled(title, COLUMNS, rows, result)


def scaling_table(result: Content) -> str:
    """Return one candidate at several settings."""
    columns = ("size", "threads", "ms", "quartiles", "ns a pixel", "/ that of the first")
    rows = [
        (
            size_name(found.setting.size),
            str(found.setting.threads),
            *_milliseconds(found.ms),
            f"{found.ns_per_pixel.median:.0f}",
            with_quartiles(found.over_first),
        )
        for found in scaling_figures(result)
    ]
    title = f"{result['candidate']}: {title_of(Setting.from_json(result['setting']))}"
    return _titled(title, columns, rows, result)


def detector_table(result: Content) -> str:
    """Return detectors with one head on several backbones."""
    rows = [
        (name, *_milliseconds(ms), with_quartiles(over_ours))
        for name, (ms, over_ours) in detector_figures(result).items()
    ]
    title = f"Mask R-CNN FPN, {title_of(Setting.from_json(result['setting']), autocast=True)}"
    return _titled(title, ("backbone", "ms", "quartiles", "/ ours"), rows, result)


def int8_table(result: Content) -> str:
    """Return size, speed and error of float32 and int8."""
    figures = int8_figures(result)
    columns = ("linear layers", "MB", "ms", "quartiles", "x float32", "largest error", "mean error")
    rows = [
        (
            name,
            f"{found['bytes'] / 1e6:.1f}",
            *_milliseconds(figures[name][0]),
            with_quartiles(figures[name][1]),
            f"{found['max_error']:.1e}",
            f"{found['mean_error']:.1e}",
        )
        for name, found in result["models"].items()
    ]
    return _titled(title_of(Setting.from_json(result["setting"])), columns, rows, result)


def attention_table(result: Content) -> str:
    """Return the times of forward and of both passes, with their share of the roofline."""
    columns = ("attention", "forward us", "of roofline", "both us", "of roofline")
    rows = [
        (
            name,
            *(
                cell
                for seconds, share in zip(found["seconds"], found["roofline"])
                for cell in (f"{seconds * 1e6:.0f}", f"{share:.2f}")
            ),
        )
        for name, found in result["rows"].items()
    ]
    bandwidth, rate = result["bandwidth"] / 1e9, result["rate"] / 1e12
    title = title_of(Setting.from_json(result["setting"])).replace("forward", "attention")
    title += f"; a copy at {bandwidth:.0f} GB/s, a product at {rate:.0f} TFLOP/s"
    return _titled(title, columns, rows, result)


TABLES = {
    ATTENTION: attention_table,
    COMPARISON: comparison_table,
    SCALING: scaling_table,
    DETECTOR: detector_table,
    INT8: int8_table,
}


def failures(results: Iterable[Content]) -> Iterator[str]:
    """Yield a line for each candidate that was not timed, with the setting and the reason."""
    for result in results:
        where = title_of(Setting.from_json(result["setting"]))
        for name, why in result["failed"].items():
            yield f"{name} is not timed ({where}): {why}"


def _titled(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], result: Content
) -> str:
    notes = [f"{name} is left out: {why}" for name, why in result.get("left_out", {}).items()]
    notes += [f"{name} is NOT TIMED: {why}" for name, why in result["failed"].items()]
    return "\n".join([f"**{title}**", "", markdown(columns, rows), *(f"\n{n}." for n in notes)])


def title_of(setting: Setting, autocast: bool = False) -> str:
    """Return the setting in words; half precision is autocast in training or if ``autocast``."""
    precision = setting.dtype
    if setting.dtype != "float32":
        precision += " (autocast)" if autocast or setting.training else " (model and images)"
    mode = "forward + backward" if setting.training else "forward"
    return (
        f"{setting.model}, window {setting.window}, {size_name(setting.size)}, batch "
        f"{setting.batch}, {precision}, {mode}"
    )


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, content: Content, found: Compared) -> tuple[str, ...]:
    memory = content["memory"]
    return (
        name,
        *_milliseconds(found.ms),
        _unnamed(found.over_eager),
        _unnamed(found.over_compiled),
        with_quartiles(found.floor),
        f"{memory / 1e6:.0f}" if isinstance(memory, int) else memory or "-",
        "-" if found.memory_ratio is None else f"{found.memory_ratio:.2f}",
        f"{content['difference']:.0e} at {content['at']}",
    )


def lines(result: Content) -> Iterator[str]:
    """Yield a result for a terminal: the columns of its table, aligned and without markdown."""
    table = TABLES[result["kind"]](result).splitlines()
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    yield table[0].strip("*")
    for row in rows[:1] + rows[2:]:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    yield from (f"  {note}" for note in table if note and not note.startswith(("|", "**")))


def _milliseconds(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:.1f}", f"{spread.low:.1f} - {spread.high:.1f}"


def with_quartiles(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} - {spread.high:.2f})"
