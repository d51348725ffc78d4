"""The tables of exporters and readers in docs/EXPORTERS.md, made from the results of ``run.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.validation.report import counted

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "EXPORTERS.md"
START, END = "<!-- exporters: begin -->", "<!-- exporters: end -->"
Result = dict[str, Any]


def tables(results: dict[str, Result]) -> str:
    """Return both tables in Markdown; what a tool writes with the same result shares a row."""
    lines = ["| exporter | writes | read as | result without any setting |", "|---|---|---|---|"]
    rows: dict[tuple[str, str], list[Result]] = {}
    for name, result in results.items():
        if name != "readers":
            rows.setdefault((result["tool"], in_words(result)), []).append(result)
    for (tool, words), found in rows.items():
        written = ", ".join(result["writes"] for result in found)
        formats = dict.fromkeys(result["format"] for result in found if "format" in result)
        kinds = ", ".join(f"`{one}`" for one in formats)
        lines.append(f"| {tool} | {written} | {kinds} | {words} |")
    return "\n".join([*lines, "", *_readers(results.get("readers", {}))])


def _readers(readers: dict[str, Result]) -> list[str]:
    """Return a table with a row for each form and a column for each library."""
    names = ["supervision", "datumaro", "labelformat", "ours"]
    lines = [f"| form | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for form in dict.fromkeys(name.split()[0] for name in readers):
        cells = []
        for name in names:
            found = readers.get(f"{form} {name}")
            cells.append("" if found is None else in_words(found))
        lines.append(f"| `{form}` | {' | '.join(cells)} |")
    return lines


def in_words(result: Result) -> str:
    """Describe what the reader got of the objects of the scene."""
    for key, word in (("exporter_error", "the exporter failed"), ("error", "fails")):
        if key in result:
            return (
                f"{word}: {result[key]}" if key == "exporter_error" else f"{word} ({result[key]})"
            )
    if "refused" in result:
        return f"stops: {result['refused']}"
    if result.get("errors"):
        return f"stops: {'; '.join(result['errors'])}"
    if not result["objects"]:
        return "nothing"
    exact, what = result["masks"], "masks"
    if exact is None:
        exact, what = result["boxes"], "boxes"
    given = result["of"]
    words = [f"{exact} of {given} {what} exact"]
    if result["masks"] is None and exact < given:
        words.append(f"off by up to {result['farthest']:g} px")
    if result["lost"]:
        words.append(f"{result['lost']} px differ")
    words += ["hole filled"] if result["filled"] else []
    split, lost = result["split"], 3 - result["images"]
    words += [f"{counted(split, 'object')} became two"] if split else []
    words += [f"{counted(lost, 'image')} lost"] if lost else []
    words += [f"repaired: {one}" for one in result.get("repaired", ())]
    words += [f"note: {one}" for one in result.get("notes", ())]
    words += [f"left out: {one}" for one in result.get("left_out", ())]
    return "; ".join(words)


def between(page: str) -> str:
    """Return the text between the marks of a page."""
    return page.split(START)[1].split(END)[0].strip()


def write_table(results: dict[str, Result]) -> None:
    """Replace the tables between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(START)[0], page.split(END)[1]
    write_text(PAGE, f"{before}{START}\n\n{tables(results)}\n\n{END}{after}")
