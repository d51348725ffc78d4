"""``model(image, tile=...)``: results of large pictures."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from swinv2_backbone.d2.inference.model import Model
from swinv2_backbone.d2.inference.tiling import preview
from tests.perfect_detector import painted, perfect_predictor

H, W = 150, 190


@pytest.fixture
def numbers():
    found = np.zeros((H, W), np.uint8)
    found[20:130, 30:170] = 9
    return found


def test_a_model_takes_files_and_arrays_by_tiles(tmp_path, monkeypatch, numbers):
    monkeypatch.setattr(preview, "SIDE", 95)
    tifffile.imwrite(tmp_path / "a.tif", painted(numbers), photometric="rgb", tile=(32, 32))
    model = Model(perfect_predictor(labels=True), "config.yaml", "model.pth")
    whole = model(painted(numbers), tile=64)
    for result in model([tmp_path / "a.tif", painted(numbers)], tile=64, overlap=32):
        assert result.size == (H, W) and result.image.shape == (75, 95, 3)
        assert result.boxes.tolist() == [[30, 20, 170, 130]]
        np.testing.assert_array_equal(result.masks[0], numbers == 9)
        (detection,) = result
        np.testing.assert_array_equal(detection.mask, numbers == 9)
        np.testing.assert_array_equal(result.semantic, numbers)
        assert result.plot().shape[0] >= 75
        assert result.to_coco() == whole.to_coco()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 8}, "overlap and tile_scale need tile"),
        ({"tile": 8}, "tile must be an integer of at least 32, got 8"),
        ({"tile": "1024"}, "tile must be an integer of at least 32, got '1024'"),
        ({"tile": 64, "overlap": 64}, "overlap must be smaller"),
    ],
)
def test_wrong_tiles_are_refused(numbers, options, message):
    model = Model(perfect_predictor(), "config.yaml", "model.pth")
    with pytest.raises(ValueError, match=message):
        model(painted(numbers), **options)
