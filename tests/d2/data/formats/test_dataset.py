"""The common form of readers: empty masks, wrong sizes, and boxes without masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swinv2_backbone.d2.data.formats.dataset import Dataset


def test_masks_without_a_pixel_are_left_out_and_counted():
    dataset = Dataset(Path("images"), ["fig"])
    image = dataset.add_image("a.png", (8, 10))
    dataset.add_mask(image, "fig", np.zeros((8, 10), bool))
    assert dataset.content()["annotations"] == []
    (found,) = dataset.left_out.items()
    assert found[0] == "masks without a pixel" and found[1].examples == ["fig in a.png"]


def test_the_cause_is_told_if_there_are_no_classes():
    dataset = Dataset(Path("images"))
    image = dataset.add_image("a.png", (8, 10))
    dataset.add_mask(image, "fig", np.zeros((8, 10), bool))
    with pytest.raises(ValueError) as error:
        dataset.content()
    words = "no object was read in 1 image, and this format names its classes in the objects alone"
    assert words in str(error.value)
    assert "\n  left out: masks without a pixel: fig in a.png" in str(error.value)
    with pytest.raises(ValueError, match="its list of classes is empty"):
        Dataset(Path("images"), []).content()


def test_a_mask_of_another_size_is_refused():
    dataset = Dataset(Path("images"))
    image = dataset.add_image("a.png", (8, 10))
    with pytest.raises(ValueError, match="a.png: a mask of fig is 10x8, the image is 8x10"):
        dataset.add_mask(image, "fig", np.ones((10, 8), bool))


def test_polygons_in_several_parts_are_one_object_with_the_box_around_them():
    dataset = Dataset(Path("images"))
    image = dataset.add_image("a.png", (8, 10))
    dataset.add_polygons(image, "fig", [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 9, 5, 9, 7, 5, 7]])
    (entry,) = dataset.content()["annotations"]
    assert entry["bbox"] == [0, 0, 9, 7] and entry["area"] == 4 + 8
    assert entry["category_id"] == 1 and entry["iscrowd"] == 0
