"""The report of a check: counts, examples and remedies, gathered in threads."""

from __future__ import annotations

import pytest

from swinv2_backbone.d2.data.validation.report import EXAMPLES, Fault, Report, for_each


def test_work_in_threads_keeps_its_order_and_shows_a_bar_only_if_long(capsys):
    assert for_each(lambda number: number * 2, range(700), "short") == list(range(0, 1400, 2))
    assert "short" not in capsys.readouterr().err
    assert for_each(str, range(1001), "long") == [str(number) for number in range(1001)]
    assert "long" in capsys.readouterr().err


def test_a_report_shows_counts_examples_and_remedies():
    report = Report("some.json")
    for number in range(EXAMPLES + 2):
        report.error(Fault("worms in figs", "wash them"), f"fig {number}")
    report.repair(Fault("dust on dates", "wiped off"), "date 1")
    report.note(Fault("figs with stalks", "keep them if you like"), "12 of 80 figs", count=12)
    assert str(report).splitlines() == [
        "some.json cannot be used:",
        "  worms in figs (7): fig 0, fig 1, fig 2, fig 3, fig 4, ...",
        "    -> wash them",
        "some.json, faults that can be repaired in a copy:",
        "  dust on dates: date 1",
        "    -> wiped off",
        "some.json, for your information:",
        "  figs with stalks (12): 12 of 80 figs",
        "    -> keep them if you like",
    ]
    with pytest.raises(ValueError, match="worms in figs"):
        report.raise_errors()
