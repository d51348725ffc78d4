"""The run lengths of the classes of a label map, against pycocotools."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling import labels


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (5, 3), (8, 11)])
@pytest.mark.parametrize("classes", [1, 2, 300])
def test_regions_are_those_of_pycocotools(monkeypatch, size, classes):
    monkeypatch.setattr(labels, "COLUMNS", 3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = rng.integers(0, classes, size).astype(np.uint16)
        expected = {
            number: coco_mask.encode(np.asfortranarray(found == number, np.uint8))
            for number in np.unique(found).tolist()
        }
        assert labels.regions(found) == expected


def test_a_large_map_is_never_copied():
    found = np.zeros((4096, 4096), np.uint8)
    found[1000:3000, 500:2500] = 7
    tracemalloc.start()
    regions = labels.regions(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.nbytes / 2
    assert coco_mask.area(regions[7]) == 2000 * 2000
