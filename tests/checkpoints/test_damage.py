"""Damaged files without a checksum: what tools/reliability/damage.py counts."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from scripts import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from reliability import damage  # noqa: E402

Counts = dict[str, dict[str, dict[str, int]]]


@pytest.fixture(autouse=True)
def quiet():
    logger = logging.getLogger("swinv2_backbone")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def check(found: Counts, count: int) -> None:
    """Check that with a digest none loads, and that without one hardly any hole is silent."""
    refused, _, warned, silent = damage.OUTCOMES
    assert list(found) == list(damage.FORMATS)
    for rows in found.values():
        kinds = {kind: row for kind, row in rows.items() if kind != damage.ALL}
        assert sum(sum(row.values()) for row in kinds.values()) == count
        assert sum(rows[damage.ALL].values()) == rows[damage.ALL][refused] == count
        assert rows["truncated"][refused] == count // len(damage.KINDS)
        assert rows["random block"][silent] == 0 and rows["zeroed block"][warned] > 0
        assert rows["zeroed block"][silent] <= count // 100  # a hole in biases alone is silent


def test_no_damaged_file_with_a_digest_loads_and_holes_are_not_silent(tmp_path):
    check(damage.survey(tmp_path, 10), 10)


def test_the_same_files_are_damaged_in_every_run(tmp_path):
    first, second = (
        [path.read_bytes() for _, path in damage.files(tmp_path, ".pth", 5)] for _ in range(2)
    )
    assert first == second and len(set(first)) == 5


def test_the_whole_file_is_loaded_without_a_word(tmp_path):
    state = damage.trained_state()
    for suffix in damage.FORMATS:
        path = tmp_path / f"whole{suffix}"
        damage.write(state, path)
        assert damage.outcome(damage.model(), path, state) == "the same weights"
        assert not damage.load_checkpoint(damage.model(), path).unusual
    assert all(torch.equal(value, state[name]) for name, value in damage.trained_state().items())


@pytest.mark.reliability
def test_all_damaged_files_are_counted_as_documented(tmp_path, record_figures):
    found = damage.survey(tmp_path)
    check(found, damage.COUNT)
    for suffix, rows in found.items():
        kinds = [row for kind, row in rows.items() if kind != damage.ALL]
        counts = (f"{sum(row[name] for row in kinds)} {name}" for name in damage.OUTCOMES)
        record_figures(
            "SECURITY.md", f"{damage.COUNT} damaged {suffix} without digest: {', '.join(counts)}"
        )
    page = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    assert all(row in page for row in damage.table(found).splitlines())
