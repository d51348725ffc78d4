"""The table of runtimes in docs/EXPORT.md, made from the results of ``run.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes.measure import NOT_RUN, RUNTIMES
from runtimes.models import MODELS
from swinv2_backbone.checkpoints.durable import write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "EXPORT.md"
START, END = "<!-- runtimes: begin -->", "<!-- runtimes: end -->"
Results = dict[str, dict[str, dict[str, Any]]]


def table(results: Results) -> str:
    """Return the table in Markdown: a row for each runtime, a column for each model."""
    titles = [f"{name}, {model.title}" for name, model in MODELS.items()]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for runtime in RUNTIMES:
        found = [results[model].get(runtime, {}) for model in MODELS]
        stated: dict[str, str] = next((one["versions"] for one in found if one), {})
        versions = ", ".join(" ".join(one) for one in stated.items()) or "not measured"
        cells = [in_words(one, runtime) for one in found]
        lines.append(f"| {runtime} ({versions}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def in_words(result: dict[str, Any], runtime: str) -> str:
    """Describe a result: the difference and the ratio of times, or the reason."""
    if not result:
        return "not measured"
    if "reason" in result:
        return str(result["reason"]).replace("|", "\\|")
    time = "not run" if runtime in NOT_RUN else f"{result['time']:.2f}"
    return f"{result['difference']:.1e}, {time}"


def between(page: str) -> str:
    """Return the text between the marks of a page."""
    return page.split(START)[1].split(END)[0].strip()


def write_table(results: Results) -> None:
    """Replace the table between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(START)[0], page.split(END)[1]
    write_text(PAGE, f"{before}{START}\n\n{table(results)}\n\n{END}{after}")
