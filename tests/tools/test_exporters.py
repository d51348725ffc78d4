"""The tables of exporters in the documentation are those of the last run."""

from __future__ import annotations

import json
import sys

from scripts import ROOT

sys.path.append(str(ROOT / "tools"))

from exporters import run, table  # noqa: E402

RESULTS = json.loads(table.RESULTS.read_text())


def test_the_page_has_the_tables_of_the_last_run():
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.between(page) == table.tables(RESULTS), "run tools/exporters/run.py"


def test_every_exporter_and_form_has_a_result():
    assert [*RESULTS] == [*run.EXPORTERS, *run.OWN, "readers"]


def test_exporters_are_pinned_and_named_with_their_version():
    pinned = [one for packages in run.ENVIRONMENTS.values() for one in packages]
    assert all("==" in one for one in pinned)
    versions = {one.replace("==", " ") for one in pinned}
    assert {RESULTS[name]["tool"] for name in run.EXPORTERS} <= versions


def test_our_readers_keep_every_pixel_of_the_forms_that_hold_it():
    for name, result in RESULTS["readers"].items():
        if name.endswith(" ours"):
            found = result["boxes"] if result["masks"] is None else result["masks"]
            assert found == result["of"] and not result["lost"], name


def test_words_name_what_is_lost():
    result = {"of": 6, "objects": 5, "boxes": 4, "masks": 3, "lost": 12, "filled": True, "split": 1}
    result |= {"images": 2, "farthest": 1.0, "notes": ["1 a"], "left_out": ["2 b"]}
    assert table.in_words(result) == (
        "3 of 6 masks exact; 12 px differ; hole filled; 1 object became two; 1 image lost; "
        "note: 1 a; left out: 2 b"
    )
    boxes = result | {"masks": None, "lost": 0, "filled": False, "split": 0, "images": 3}
    assert table.in_words(boxes).startswith("4 of 6 boxes exact; off by up to 1 px")
    assert table.in_words({"refused": "why"}) == "stops: why"
    assert table.in_words({"errors": ["1 a", "2 b"]}) == "stops: 1 a; 2 b"
