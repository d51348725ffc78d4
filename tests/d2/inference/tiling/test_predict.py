"""A picture predicted by tiles: objects, class numbers, records, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tifffile
import torch
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.inference.prediction import Classes, Prediction, RunLengths, to_records
from swinv2_backbone.d2.inference.tiling import Tiling, labels, predict_tiled
from swinv2_backbone.d2.inference.tiling.predict import Scaling
from tests.perfect_detector import painted, perfect_predictor, true_boxes, true_masks

H, W = 150, 190
TILING = Tiling(64, 32, batch_size=3)


@pytest.fixture
def numbers():
    found = np.zeros((H, W), np.uint8)
    for index, (y, x, height, width) in enumerate(
        [(5, 5, 20, 20), (20, 40, 50, 100), (100, 0, 10, 190), (80, 60, 15, 15), (120, 150, 30, 40)]
    ):
        found[y : y + height, x : x + width] = index + 1
    return found


def decoded(found: Prediction) -> list[bytes]:
    rles = found.instances.pred_rles
    return sorted(coco_mask.decode(rles[index]).tobytes("F") for index in range(len(rles)))


def test_a_file_gives_the_objects_of_the_picture(tmp_path, numbers):
    tifffile.imwrite(tmp_path / "a.tif", painted(numbers), photometric="rgb", tile=(32, 32))
    predictor = perfect_predictor()
    found = predict_tiled(predictor, tmp_path / "a.tif", TILING)
    assert found.instances.image_size == (H, W)
    assert decoded(found) == true_masks(numbers)
    boxes = found.instances.pred_boxes.tensor.int().tolist()
    assert sorted(map(tuple, boxes)) == true_boxes(numbers)
    assert sorted(predictor.model.seen) == sorted(
        (tile.height, tile.width) for tile in TILING.tiles(H, W)
    )


def test_records_of_tiles_are_those_of_the_whole_picture(numbers):
    tiled = perfect_predictor(labels=True)
    whole = dataclasses.replace(tiled, resize=Scaling(1))
    expected = whole.records(whole(painted(numbers)))
    found = tiled.records(predict_tiled(tiled, painted(numbers), TILING))
    assert found["classes"] == expected["classes"]
    assert len(found["detections"]) == len(expected["detections"]) == 5
    for one, other in zip(*(map(by_box, (found, expected)))):
        assert one == {**other, "score": pytest.approx(other["score"])}


def by_box(records: dict) -> list[dict]:
    return sorted(records["detections"], key=lambda record: record["bbox"])


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_class_numbers_of_tiles_are_those_of_the_picture(numbers, monkeypatch, in_memory):
    monkeypatch.setattr(labels, "IN_MEMORY", in_memory)
    found = predict_tiled(perfect_predictor(labels=True), painted(numbers), TILING).labels
    assert found.dtype == np.uint8 and isinstance(found, np.memmap) == (in_memory == 0)
    np.testing.assert_array_equal(found, numbers)


def test_a_pixel_has_the_class_of_the_tile_that_shows_it_best(numbers):
    """Each tile answers with the distance of its pixels to its sides."""

    class Distances(torch.nn.Module):
        def forward(self, inputs):
            return [{"sem_seg": self.near(one["height"], one["width"])} for one in inputs]

        @staticmethod
        def near(height, width):
            y, x = np.mgrid[:height, :width]
            sides = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
            return torch.nn.functional.one_hot(torch.from_numpy(sides), 64).permute(2, 0, 1)

    predictor = dataclasses.replace(perfect_predictor(), model=Distances())
    found = predict_tiled(predictor, painted(numbers), TILING).labels
    inner = found[32:96, 32:128]
    assert inner.min() >= 15  # half of the overlap, less the pixel itself


def test_a_scale_enlarges_every_tile_alike(numbers):
    predictor = perfect_predictor()
    found = predict_tiled(predictor, painted(numbers), Tiling(64, 32, scale=2))
    sizes = [(2 * tile.height, 2 * tile.width) for tile in Tiling(64, 32, scale=2).tiles(H, W)]
    assert sorted(predictor.model.seen) == sorted(sizes) and (128, 128) in sizes
    assert found.instances.image_size == (H, W)


def test_boxes_alone_and_empty_pictures(numbers):
    found = predict_tiled(perfect_predictor(masks=False), painted(numbers), TILING)
    assert not found.instances.has("pred_rles") and len(found.instances) == 5
    for masks in (True, False):
        none = predict_tiled(perfect_predictor(masks=masks), painted(numbers * 0), TILING)
        assert len(none.instances) == 0 and to_records(none, Classes()) == {"detections": []}


def test_each_tile_is_shown_with_its_pixels(numbers):
    shown, picture = [], painted(numbers)
    predict_tiled(perfect_predictor(), picture, TILING, seen=lambda *given: shown.append(given))
    assert [tile for tile, *_ in shown] == TILING.tiles(H, W)
    for (left, top, right, bottom), pixels, size in shown:
        np.testing.assert_array_equal(pixels, picture[top:bottom, left:right])
        assert size == (H, W)


class Answering(torch.nn.Module):
    """A model that adds an output to that of the perfect one."""

    def __init__(self, **fields):
        super().__init__()
        self.perfect, self.fields = perfect_predictor().model, fields

    def forward(self, inputs):
        outputs = self.perfect(inputs)
        for output in outputs:
            if "panoptic_seg" in self.fields:
                output |= self.fields
            else:
                for name in self.fields:
                    output["instances"].set(name, torch.zeros(len(output["instances"])))
        return outputs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"panoptic_seg": (torch.zeros(2, 2), [])}, "panoptic segments are not joined"),
        ({"pred_keypoints": None}, "outputs pred_keypoints are not joined"),
    ],
)
def test_outputs_that_cannot_be_joined_are_refused(numbers, fields, message):
    predictor = dataclasses.replace(perfect_predictor(), model=Answering(**fields))
    with pytest.raises(ValueError, match=message):
        predict_tiled(predictor, painted(numbers), TILING)


def test_run_lengths_are_chosen_like_other_fields():
    rles = RunLengths([b"a", b"b", b"c"], (4, 5))
    assert rles[1] == {"size": [4, 5], "counts": b"b"}
    assert [rles[1:][index]["counts"] for index in range(2)] == [b"b", b"c"]
    chosen = rles[torch.tensor([True, False, True])]
    assert len(chosen) == 2 and chosen[1]["counts"] == b"c"
    assert rles[torch.tensor([2, 0])][0]["counts"] == b"c"
