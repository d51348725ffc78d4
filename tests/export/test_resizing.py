"""The size that an exported file's pictures should have, in both dialects."""

from __future__ import annotations

import pytest
from scripts import CONFIGS

from swinv2_backbone.d2.export.resizing import resize_note


@pytest.mark.parametrize(
    "name, opts",
    [
        ("mask_rcnn_swinv2_demo.yaml", ["MODEL.DEVICE", "cpu"]),
        ("mask_rcnn_swinv2_demo.py", ["train.device=cpu"]),
    ],
)
def test_the_note_has_the_sizes_of_the_config(name, opts):
    note = resize_note(str(CONFIGS / name), opts)
    assert note == "shorter side 128, longer side at most 192"


def test_images_that_are_not_resized_are_said_to_be_so():
    opts = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "0"]
    assert resize_note(str(CONFIGS / "mask_rcnn_swinv2_demo.yaml"), opts) == "none"
