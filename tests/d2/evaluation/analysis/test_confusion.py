"""Confusion tables of many classes, and tables as text."""

from __future__ import annotations

import numpy as np
import pytest
from analysis_cases import (
    DOG,
    MEDIUM,
    PERFECT,
    found,
    many_classes,
    precisions,
)

from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion, object_confusion
from swinv2_backbone.d2.evaluation.analysis.matching import match_images
from swinv2_backbone.d2.evaluation.analysis.tables import confusion_text, precision_text


def test_of_many_classes_those_with_most_confusion_are_shown():
    shown = many_classes(40).most_confused()
    assert shown.rows == (*(f"class {number}" for number in range(10, 40)), "background")
    assert shown.columns[-1] == "missed" and shown.hidden == 10
    assert shown.counts[:, -1].tolist() == [*range(10, 40), 0]
    assert many_classes(30).most_confused().hidden == 0


def table_of(counts: list[list[int]]) -> Confusion:
    counts = np.array(counts)
    return Confusion(counts, ("a", "b", "c"), ("a", "b", "c"), counts.sum(axis=1))


def test_shares_count_the_columns_that_are_not_shown():
    shown = table_of([[4, 2, 2], [0, 9, 1], [6, 0, 0]]).most_confused(2)
    assert shown.rows == shown.columns == ("a", "c")
    assert shown.shares.tolist() == [[0.5, 0.25], [1, 0]]


def test_shares_of_a_class_without_objects_are_0():
    assert table_of([[4, 0, 4], [0, 9, 0], [0, 0, 0]]).shares[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "counts", [[[9, 0, 0], [3, 9, 0], [3, 0, 9]], [[9, 3, 3], [0, 9, 0], [0, 0, 9]]]
)
def test_confusion_is_to_be_taken_for_others_and_others_for_it(counts):
    assert table_of(counts).most_confused(1).rows == ("a",)


def test_tables_can_be_read(compared):
    detections = compared([*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)])
    lines = precision_text(precisions(detections)).splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[4].split() == ["cat", "50.5", "50.5", "50.5", "-", "50.5", "-"]
    table = object_confusion(
        match_images(detections, 0.5, 0.5).values(), detections.classes, detections.index
    )
    rows = [line.split() for line in confusion_text(table).splitlines()]
    assert rows[1] == ["1", "2", "missed"]
    assert rows[3:] == [
        ["1", "dog", "2", ".", "."],
        ["2", "cat", "1", "1", "."],
        ["background", ".", ".", "."],
    ]


def test_large_counts_are_given_in_percent():
    counts = np.array([[300_000, 100_000], [0, 5]])
    text = confusion_text(Confusion(counts, ("a", "b"), ("a", "b"), counts.sum(axis=1)))
    assert "75.0" in text and "percent" in text and "300000" not in text
