"""Large pictures in files: reduced drawings, class numbers and records."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.tiling import Tiling, preview
from swinv2_backbone.d2.inference.tiling.files import predict_large_files
from swinv2_backbone.d2.inference.tiling.preview import Preview, run_counts, sampled
from tests.perfect_detector import painted, perfect_predictor

H, W = 150, 190


@pytest.fixture
def numbers():
    found = np.zeros((H, W), np.uint8)
    found[20:130, 30:170] = 9
    found[60:90, 70:120] = 0
    return found


@pytest.mark.parametrize("share", [0.01, 0.3, 0.97])
def test_masks_are_sampled_from_their_run_lengths(share):
    """The truth is pycocotools's decoder."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = np.asfortranarray(rng.random((40, 61)) < share, np.uint8)
        rle = coco_mask.encode(mask)
        assert run_counts(rle["counts"]).sum() == mask.size
        rows, columns = np.arange(0, 40, 3), np.arange(1, 61, 4)
        found = sampled(rle["counts"], 40, rows, columns)
        np.testing.assert_array_equal(found, mask[np.ix_(rows, columns)] == 1)


def test_a_preview_is_the_reduced_picture(monkeypatch):
    monkeypatch.setattr(preview, "SIDE", 95)
    y, x = np.mgrid[:H, :W]
    picture = np.stack([y, x, (x + y) // 2], axis=2).astype(np.uint8)
    collected = Preview()
    for tile in Tiling(64, 32).tiles(H, W):
        part = picture[tile.top : tile.bottom, tile.left : tile.right]
        collected.add(tile, part, (H, W))
    expected = cv2.resize(picture, (95, 75), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(collected._pixels, expected, atol=1)


@pytest.mark.parametrize("side", [2048, 95])
def test_files_get_a_drawing_class_numbers_and_a_record(tmp_path, monkeypatch, numbers, side):
    monkeypatch.setattr(preview, "SIDE", side)
    Image.fromarray(painted(numbers)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    folder = tmp_path / "drawn"
    folder.mkdir()
    outputs = {tmp_path / name: folder / name for name in ("a.png", "b.png")}
    predictor = perfect_predictor(labels=True)
    records, failed = predict_large_files(predictor, Tiling(64, 32), outputs, folder)
    assert len(failed) == 1 and "b.png is damaged" in failed[0]
    assert json.loads((folder / "detections.json").read_text()) == records
    (record,) = records
    assert (record["height"], record["width"], len(record["detections"])) == (H, W, 1)
    mask = coco_mask.decode(record["detections"][0]["segmentation"])
    np.testing.assert_array_equal(mask, numbers == 9)
    labels = cv2.imread(str(folder / "a.png_labels.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, numbers)
    drawn = cv2.imread(str(folder / "a.png"))
    height, width = drawn.shape[:2]
    colored = drawn.max(axis=2).astype(int) - drawn.min(axis=2) > 20
    assert colored[int(height * 0.7), int(width * 0.25)], "the object is tinted"
    assert not colored[height // 2, width // 2], "its hole is not"
