"""docs/speed.json: small, one result a line, and the source of the tables of docs/speed."""

from __future__ import annotations

import re
import sys

import pytest
from scripts import ROOT

sys.path.insert(0, str(ROOT / "tools"))  # as the script itself does

from benchmarking import figures, report, results  # noqa: E402

DATA, PAGES = ROOT / "docs" / "speed.json", ROOT / "docs" / "speed"
KILOBYTES = 60
LINE = 3000  # characters


@pytest.fixture(scope="module")
def measured() -> list[dict]:
    return results.read_results(DATA)


def on_cpu(measured: list[dict]) -> list[dict]:
    return [one for one in measured if "gpu" not in one["machine"]]


def test_the_file_is_small_and_has_one_result_a_line(measured):
    text = DATA.read_text(encoding="utf-8")
    lines = text.splitlines()
    machines = {report.one_line(one["machine"]) for one in measured}
    assert len(text) <= KILOBYTES * 1000
    assert len(lines) == len(measured) + len(machines) + 4  # brackets
    assert max(map(len, lines)) <= LINE
    assert sum('"kind":' in line for line in lines) == len(measured)


def test_the_file_is_as_it_would_be_written_again(measured, tmp_path):
    again = results.Results(None)
    for one in measured:
        assert again.add(one) == one
    results.write_results(tmp_path / "a.json", measured)
    assert (tmp_path / "a.json").read_bytes() == DATA.read_bytes()


def test_the_tables_of_the_pages_are_made_from_the_file(measured):
    """Each section is on one page, a level higher than in the whole document."""
    machine, *sections = re.split(r"^### ", report.tables(on_cpu(measured)), flags=re.M)
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    assert "\n## " in machine and len(sections) == 12
    for section in sections:
        assert pages.count(f"## {section.strip()}\n") == 1, section.splitlines()[0]


def test_every_comparison_has_ours_and_a_peer_to_draw(measured):
    compared = [one for one in on_cpu(measured) if one["kind"] == results.COMPARISON]
    assert compared
    for one in compared:
        found = figures.comparison_figures(one)
        assert found["ours"].over_eager is not None
        assert found[found["ours"].over_eager.of].over_eager.spread.median == 1
