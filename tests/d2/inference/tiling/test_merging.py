"""The pieces that tiles show of objects become the objects again, exactly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from swinv2_backbone.d2.inference.tiling.geometry import Tile
from swinv2_backbone.d2.inference.tiling.merging import Merger
from swinv2_backbone.d2.inference.tiling.pieces import Pieces
from tests.perfect_detector import masks_of, merged, true_boxes, true_masks

H, W = 420, 500
TILE, OVERLAP = 128, 64


def empty() -> np.ndarray:
    return np.zeros((H, W), np.uint8)


def spanning_two() -> np.ndarray:
    numbers = empty()
    numbers[20:60, 90:140] = 1  # larger than the overlap or not, on both kinds of seams
    numbers[100:160, 10:40] = 2
    numbers[20:40, 150:480] = 3
    return numbers


def on_seams() -> np.ndarray:
    """Rectangles that begin, end or lie on the sides of tiles."""
    numbers = empty()
    for index, (y, x) in enumerate([(64, 64), (64, 120), (120, 64), (128, 128), (190, 120)]):
        numbers[y : y + 40, x : x + 40] = index + 1
    numbers[300:310, 127:129] = 10
    numbers[320:330, 63:65] = 11
    numbers[340:341, 127:128] = 12
    numbers[340:341, 300:301] = 13
    return numbers


def spanning_many() -> np.ndarray:
    numbers = empty()
    numbers[40:380, 40:460] = 1
    numbers[0:20, :] = 2
    numbers[:, 480:500] = 3
    return numbers


def diagonals() -> np.ndarray:
    numbers = empty()
    for index, (start, end) in enumerate(
        [((0, 0), (499, 419)), ((499, 30), (30, 419)), ((0, 200), (499, 230))]
    ):
        line = cv2.line(empty(), start, end, 1, 3)
        numbers[(line > 0) & (numbers == 0)] = index + 1
    return connected(numbers)


def touching() -> np.ndarray:
    """Squares side by side, without a gap, across all seams."""
    y, x = np.mgrid[:H, :W]
    return ((y // 37) * 14 + x // 37 + 1).astype(np.uint8)


def rings() -> np.ndarray:
    numbers = empty()
    cv2.circle(numbers, (250, 210), 180, 1, 7)
    cv2.rectangle(numbers, (60, 60), (200, 200), 2, 3)
    numbers[120:140, 120:140] = 3
    return connected(numbers)


def waves() -> np.ndarray:
    """A curve that crosses a seam many times, a comb and a spiral."""
    numbers = empty()
    y = np.arange(10, 300)
    points = np.stack([100 + 90 * np.sin(y / 6), y], axis=1).round().astype(np.int32)
    cv2.polylines(numbers, [points], False, 1, 2)
    numbers[320:330, 10:450] = 2
    for x in range(10, 450, 14):
        numbers[320:410, x : x + 3] = 2
    angle = np.linspace(2, 30, 900)
    spiral = np.stack([350 + 5 * angle * np.cos(angle), 150 + 5 * angle * np.sin(angle)], axis=1)
    cv2.polylines(numbers, [spiral.round().astype(np.int32)], False, 3, 3)
    return connected(numbers)


def blobs() -> np.ndarray:
    """Regions of smoothed noise: connected, of any shape and size, partly touching."""
    noise = np.random.default_rng(3).normal(size=(H, W)).astype(np.float32)
    levels = np.digitize(cv2.GaussianBlur(noise, (0, 0), 9), [-0.02, 0, 0.02]) + 1
    return connected(levels)


def connected(numbers: np.ndarray) -> np.ndarray:
    """Number the connected parts of equal numbers anew."""
    found, total = np.zeros(numbers.shape, np.int32), 0
    for number in np.unique(numbers[numbers > 0]):
        count, parts = cv2.connectedComponents((numbers == number).astype(np.uint8), connectivity=8)
        found[parts > 0] = parts[parts > 0] + total
        total += count - 1
    return found


SCENES = [spanning_two, on_seams, spanning_many, diagonals, touching, rings, waves, blobs]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("overlap", [OVERLAP, 32])
def test_masks_across_seams_are_those_of_the_picture(scene, overlap):
    numbers = scene()
    found = merged(numbers, TILE, overlap)
    assert masks_of(found, numbers.shape) == true_masks(numbers)
    assert sorted(map(tuple, found.boxes.astype(int).tolist())) == true_boxes(numbers)
    np.testing.assert_allclose(found.scores, 0.9)


@pytest.mark.parametrize("scene", [spanning_two, on_seams, spanning_many, touching])
def test_boxes_across_seams_are_those_of_the_picture(scene):
    numbers = scene()
    found = merged(numbers, TILE, OVERLAP, masks=False)
    assert found.masks is None
    assert sorted(map(tuple, found.boxes.astype(int).tolist())) == true_boxes(numbers)


def test_a_cut_piece_joins_the_one_that_it_lies_in():
    """Real models give truncated objects other extents: here an IoU of 0.47 in the strip."""
    tiles = [Tile(0, 0, 64, 64), Tile(32, 0, 96, 64)]
    merger = Merger(tiles, 64, 96, 32, masks=False)
    for tile, box, score in zip(tiles, ((20, 10, 64, 40), (32, 0, 80, 64)), (0.6, 0.9)):
        boxes = np.array([box], np.float64)
        merger.add(tile, Pieces(boxes, np.array([score]), np.array([0]), None))
    found = merger.finish()
    assert found.boxes.tolist() == [[20, 0, 80, 64]]
    assert found.scores[0] == pytest.approx((0.6 * 44 * 30 + 0.9 * 48 * 64) / (44 * 30 + 48 * 64))
