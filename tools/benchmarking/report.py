"""Results as text: lines for a terminal, and markdown tables, every one under its machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarking.jobs import ATTENTION, COMPARISON, DETECTOR, INT8, SCALING
from benchmarking.machine import one_line
from benchmarking.settings import Setting, size_name

COLUMNS = (
    *("candidate", "ms", "quartiles", "x fastest eager peer", "x fastest compiled peer"),
    *("floor / actual", "peak memory MB", "/ leanest peer", "difference"),
)
HOW_TO_READ = """\
Milliseconds are medians; "x" is how many times faster than a peer, the median of the ratios of each
round with their quartiles in brackets.  The floor is the time of the matrix products alone.  Peak
memory is what one run needs above weights and images; "/" is divided by the leanest peer's.
"Difference" is the largest of a feature from the readable reference, and the size at which it was
taken: peers attend padding, so they are compared where there is none.
"""


def tables(results: Sequence[dict]) -> str:
    """Markdown of all results: by machine, then by section, in the order of the results."""
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


def summary_table(results: Iterable[dict]) -> str:
    """Ours in several comparisons, a row each; who the fastest peers are is named."""
    columns = ("setting", "candidate", "ms", "x fastest eager peer", "x fastest compiled peer")
    rows = []
    for result in results:
        title = title_of(Setting.from_json(result["setting"])).partition(", ")[2]
        for name, found in result["candidates"].items():
            if name.startswith("ours"):
                eager, compiled = found["speedup_over_eager"], found["speedup_over_compiled"]
                cells = _row(name, found)
                rows.append((title, name, cells[1], _named(eager), _named(compiled), *cells[5:8]))
    return markdown((*columns, *COLUMNS[5:8]), rows)


def _named(ratio: dict | None) -> str:
    return with_quartiles(ratio) + (f" {ratio['of']}" if ratio else "")


def comparison_table(result: dict) -> str:
    """The candidates of one setting, the floor below them."""
    rows = [_row(name, found) for name, found in result["candidates"].items()]
    rows.append(("floor", *_milliseconds(result["floor"]["spread"]), *[""] * 6))
    title = title_of(Setting.from_json(result["setting"]))
    return _titled(title, COLUMNS, rows, result)


def scaling_table(result: dict) -> str:
    """One candidate at several settings."""
    columns = ("size", "threads", "ms", "quartiles", "ns a pixel", "/ that of the first")
    rows = [
        (
            size_name(Setting.from_json(row["setting"]).size),
            str(row["setting"]["threads"]),
            *_milliseconds(row["spread"]),
            f"{row['nanoseconds_a_pixel']['median']:.0f}",
            with_quartiles(row["over_first"]),
        )
        for row in result["rows"]
    ]
    title = f"{result['candidate']}: {title_of(Setting.from_json(result['setting']))}"
    return _titled(title, columns, rows, result)


def detector_table(result: dict) -> str:
    """Detectors with one head on several backbones."""
    rows = [
        (name, *_milliseconds(found["spread"]), with_quartiles(found["over_ours"]))
        for name, found in result["detectors"].items()
    ]
    title = f"Mask R-CNN FPN, {title_of(Setting.from_json(result['setting']), autocast=True)}"
    return _titled(title, ("backbone", "ms", "quartiles", "/ ours"), rows, result)


def int8_table(result: dict) -> str:
    """float32 and int8: size, speed and error."""
    columns = ("linear layers", "MB", "ms", "quartiles", "x float32", "largest error", "mean error")
    rows = [
        (
            name,
            f"{found['bytes'] / 1e6:.1f}",
            *_milliseconds(found["spread"]),
            with_quartiles(found["speedup"]),
            f"{found['max_error']:.1e}",
            f"{found['mean_error']:.1e}",
        )
        for name, found in result["models"].items()
    ]
    return _titled(title_of(Setting.from_json(result["setting"])), columns, rows, result)


def attention_table(result: dict) -> str:
    """Forward, and both passes of attention, and how near they are to the roofline."""
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


def failures(results: Iterable[dict]) -> Iterator[str]:
    """Who was not timed, where and why; one line each."""
    for result in results:
        where = title_of(Setting.from_json(result["setting"]))
        for name, why in result["failed"].items():
            yield f"{name} is not timed ({where}): {why}"


def _titled(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], result: dict) -> str:
    notes = [f"{name} is left out: {why}" for name, why in result.get("left_out", {}).items()]
    notes += [f"{name} is NOT TIMED: {why}" for name, why in result["failed"].items()]
    return "\n".join([f"**{title}**", "", markdown(columns, rows), *(f"\n{n}." for n in notes)])


def title_of(setting: Setting, autocast: bool = False) -> str:
    """The setting in words; in half precision, whether by autocast, as training always is."""
    precision = setting.dtype
    if setting.dtype != "float32":
        precision += " (autocast)" if autocast or setting.training else " (model and images)"
    mode = "forward + backward" if setting.training else "forward"
    return (
        f"{setting.model}, window {setting.window}, {size_name(setting.size)}, batch "
        f"{setting.batch}, {precision}, {mode}"
    )


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name: str, found: dict) -> tuple[str, ...]:
    memory = found["memory"] or {}
    bytes_needed = f"{memory['bytes'] / 1e6:.0f}" if "bytes" in memory else memory.get("error", "-")
    ratio = found["memory_ratio"]
    return (
        name,
        *_milliseconds(found["spread"]),
        with_quartiles(found["speedup_over_eager"]),
        with_quartiles(found["speedup_over_compiled"]),
        with_quartiles(found["floor_over_actual"]),
        bytes_needed,
        "-" if ratio is None else f"{ratio:.2f}",
        f"{found['check']['difference']:.0e} at {found['check']['at']}",
    )


def lines(result: dict) -> Iterator[str]:
    """A result for a terminal: the columns of its table, aligned and without markdown."""
    table = TABLES[result["kind"]](result).splitlines()
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    yield table[0].strip("*")
    for row in rows[:1] + rows[2:]:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    yield from (f"  {note}" for note in table if note and not note.startswith(("|", "**")))


def _milliseconds(spread: dict) -> tuple[str, str]:
    return (
        f"{spread['median'] * 1e3:.1f}",
        f"{spread['low'] * 1e3:.1f} - {spread['high'] * 1e3:.1f}",
    )


def with_quartiles(spread: dict | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.2f} ({spread['low']:.2f} - {spread['high']:.2f})"
