"""The table of runtimes in the documentation is that of the last run, of pinned versions."""

from __future__ import annotations

import json
import sys

from scripts import ROOT

sys.path.append(str(ROOT / "tools"))

from runtimes import measure, models, run, table  # noqa: E402

from swinv2_backbone.export.check import LIMIT  # noqa: E402

RESULTS = json.loads(table.RESULTS.read_text())


def test_the_page_has_the_table_of_the_last_run():
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.between(page) == table.table(RESULTS), "run tools/runtimes/run.py"


def test_every_runtime_equals_the_model_or_has_a_reason():
    assert [*RESULTS] == [*models.MODELS]
    for model, found in RESULTS.items():
        assert set(found) <= set(measure.RUNTIMES), model
        for runtime, result in found.items():
            assert "reason" in result or result["difference"] <= LIMIT, (model, runtime)


def test_versions_are_the_pinned_ones():
    pinned = {one for packages in run.ENVIRONMENTS.values() for one in packages}
    pinned |= {line.split(";")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for found in RESULTS.values():
        versions = {f"{k}=={v}" for result in found.values() for k, v in result["versions"].items()}
        assert {one for one in versions if not one.startswith("torch==")} <= pinned


def test_a_result_is_described():
    assert table.in_words({"difference": 4.1e-6, "time": 0.8}, "tract") == "4.1e-06, 0.80"
    assert table.in_words({"difference": 2e-7}, "CoreML") == "2.0e-07, not run"
    assert table.in_words({}, "aoti") == "not measured"
    assert table.in_words({"reason": "no a|b"}, "ncnn") == "no a\\|b"
