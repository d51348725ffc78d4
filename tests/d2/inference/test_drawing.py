"""Predictions drawn on images: which pixels change, and to which colors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from swinv2_backbone.d2.inference.drawing import GRAY, OPACITY, Artist
from swinv2_backbone.d2.inference.lettering import write_label
from swinv2_backbone.d2.inference.prediction import Classes, Prediction

H, W = 400, 600
ARTIST = Artist(Classes(("ant", "чай"), ("sky", "Gebäude")))
THINGS = [np.array(color) for color in ARTIST._things]


def objects(*boxes: tuple[int, int, int, int], masks: bool = True) -> Prediction:
    """Objects of the classes 0, 1, 0, ..., whose masks are the left halves of their boxes."""
    found = Instances((H, W))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.full((len(boxes),), 0.875)
    found.pred_classes = torch.arange(len(boxes)) % 2
    if masks:
        found.pred_masks = torch.zeros(len(boxes), H, W, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(found.pred_masks, boxes):
            mask[y0:y1, x0 : (x0 + x1) // 2] = True
    return Prediction(found)


def black(height: int = H, width: int = W) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_objects_have_tinted_masks_boxes_and_names_in_the_color_of_their_class():
    image = black()
    drawn = ARTIST.draw(image, objects((100, 100, 200, 200), (300, 200, 500, 380)))
    assert not image.any() and drawn.shape == image.shape
    for color, inside, outside, edge, above in (
        (THINGS[0], (150, 120), (150, 180), (150, 200), (95, 101)),
        (THINGS[1], (300, 330), (300, 450), (300, 500), (195, 301)),
    ):
        assert np.abs(drawn[inside] - color * OPACITY).max() <= 1
        assert not drawn[outside].any()
        assert (drawn[edge] == color).all()
        assert (drawn[above] == color).all()
    assert not drawn[:80].any() and not drawn[:, 510:].any()


def test_boxes_without_masks_leave_the_pixels_inside():
    drawn = ARTIST.draw(black(), objects((100, 100, 200, 200), masks=False))
    assert not drawn[110:190, 110:190].any() and drawn[100:201, 200].all(axis=0).any()


def test_nothing_found_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    for found in (objects(), Prediction()):
        drawn = ARTIST.draw(image, found)
        assert np.array_equal(drawn, image) and drawn is not image


def test_regions_have_the_color_of_their_class_a_border_and_a_name():
    labels = np.zeros((H, W), np.int64)
    labels[200:] = 1
    drawn = ARTIST.draw(black(), Prediction(labels=labels)).astype(int)
    gray = np.array(GRAY) * OPACITY
    assert np.abs(drawn[10, 10] - gray).max() <= 1
    assert np.abs(drawn[390, 10] - np.array(ARTIST._stuff[1]) * OPACITY).max() <= 1
    assert (drawn[199] == 255).all()
    for top, color in ((0, ARTIST._stuff[0]), (200, ARTIST._stuff[1])):
        assert (drawn[top : top + 198] == color).all(axis=2).sum() > 200  # the name's background


def test_segments_of_a_panoptic_prediction_have_the_colors_of_things_and_stuff():
    segments = torch.zeros(H, W, dtype=torch.int32)
    segments[:, 300:], segments[:100, :200] = 5, 2
    described = [
        {"id": 5, "isthing": False, "category_id": 1, "area": 1},
        {"id": 2, "isthing": True, "category_id": 1, "score": 0.9},
    ]
    drawn = ARTIST.draw(black(), Prediction(panoptic=(segments, described))).astype(int)
    assert np.abs(drawn[390, 590] - np.array(ARTIST._stuff[1]) * OPACITY).max() <= 1
    assert np.abs(drawn[5, 5] - THINGS[1] * OPACITY).max() <= 1
    assert not drawn[300, 100].any()  # no segment


def test_a_small_image_is_enlarged_with_its_objects():
    found = objects((10, 10, 30, 30))
    found.instances.pred_masks = found.instances.pred_masks[:, :40, :60]
    drawn = ARTIST.draw(black(40, 60), found)
    assert drawn.shape == (400, 600, 3)
    assert np.abs(drawn[200, 150] - THINGS[0] * OPACITY).max() <= 2
    assert (drawn[200, 300] == THINGS[0]).any() and not drawn[200, 260].any()


@pytest.mark.parametrize("place", [(-50, -50), (W + 50, H + 50), (300, 2)])
def test_names_stay_inside_and_have_letters_that_contrast(place):
    for color, ink in (((255, 255, 255), 0), ((40, 0, 0), 255)):
        drawing = np.full((H, W, 3), 77, np.uint8)
        write_label(drawing, "Gebäude чай 87%", place, color)
        changed = drawing[(drawing != 77).any(axis=2)]
        assert (changed == color).all(axis=1).sum() > 300
        assert (changed == ink).all(axis=1).sum() > 20


def test_letters_of_other_scripts_differ():
    drawings = [black(40, 200) for _ in range(3)]
    for drawing, text in zip(drawings, ("чай", "йач", "caj")):
        write_label(drawing, text, (5, 30), (255, 255, 255))
    assert not any(np.array_equal(drawings[0], other) for other in drawings[1:])
