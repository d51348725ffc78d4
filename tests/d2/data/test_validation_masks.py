"""Masks of COCO-format files are decoded as pycocotools decodes them, and damage is found."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation.masks import mask_area, usable
from swinv2_backbone.d2.data.validation.report import FaultError


def random_mask(rng: np.random.Generator, height: int, width: int) -> dict:
    """A mask compressed by pycocotools, from nearly empty to nearly full."""
    mask = rng.random((height, width)) < rng.random()
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [height, width], "counts": encoded["counts"].decode()}


def test_compressed_masks_of_any_size_are_understood():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 80, 2).tolist()
        rle = random_mask(rng, height, width)
        assert usable(rle, height, width) is rle
        assert mask_area(rle, height, width) == coco_mask.decode(rle).sum()
        with pytest.raises(FaultError, match="instead of"):
            usable(rle, height, width + 1)
        text = rle["counts"]
        for damaged in (text[:-1], text + "P", text[:-1] + chr(ord(text[-1]) + 64)):
            with pytest.raises(FaultError):
                usable(rle | {"counts": damaged}, height, width)


def test_polygon_areas_are_those_of_the_union_of_their_pixels():
    polygons = [[1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 8, 3, 8, 8, 3, 8]]
    canvas = np.zeros((10, 10), bool)
    canvas[1:5, 1:5] = canvas[3:8, 3:8] = True
    assert mask_area(polygons, 10, 10) == canvas.sum()
