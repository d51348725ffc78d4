"""The picture of training samples: shows the next images, and changes nothing."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from PIL import Image

from swinv2_backbone.d2.data.loading import samples
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.samples import SIDE, Names, next_records, write_samples

HEIGHT, WIDTH = 42, 84
SCALE = SIDE // WIDTH
RED, BLUE = (200, 30, 30), (30, 30, 200)


class Mapper:
    """Draws from every generator, and has a state of its own."""

    def __init__(self):
        self.calls = 0

    def __call__(self, record: dict) -> dict:
        self.calls += 1
        drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))
        return record | {"drawn": drawn, "image": torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)}


def loader(mapper=None, count: int = 20, **options) -> TrainLoader:
    records = [
        {"file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH if i % 3 else 20}
        for i in range(count)
    ]
    options = {"total_batch_size": 2, "seed": 5} | options
    return TrainLoader(records, mapper or Mapper(), **options)


def drawn(found: TrainLoader, count: int) -> list[tuple]:
    taken = [(r["file_name"], r["drawn"]) for b in islice(iter(found), count) for r in b]
    found.close()
    return taken


def test_the_samples_are_the_next_images_of_the_training():
    expected = drawn(loader(), 12)
    assert [(r["file_name"], r["drawn"]) for r in next_records(loader(), 9)] == expected[:9]
    resumed = loader()
    resumed.load_state_dict({"seed": 5, "images": 12})
    assert [(r["file_name"], r["drawn"]) for r in next_records(resumed, 9)] == expected[12:21]


def test_a_picture_changes_neither_the_order_nor_random_state_nor_the_mapper(tmp_path):
    found = loader()
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    write_samples(found, Names(), tmp_path / "a.jpg")
    assert found.mapper.calls == 0
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == state
    assert drawn(found, 12) == drawn(loader(), 12)


def test_a_sampler_with_a_state_is_not_drawn_from():
    class Once(TrainingSampler):
        started = 0

        def __iter__(self):
            self.started += 1
            return super().__iter__()

    sampler = Once(20, seed=3)
    assert len(next_records(loader(sampler=sampler), 9)) == 9
    assert sampler.started == 0


def picture_of(tmp_path: Path, record: dict, names: Names) -> np.ndarray:
    """Return the drawn record (H, W, 3), enlarged by SCALE, without its caption."""
    image = torch.full((3, HEIGHT, WIDTH), 100, dtype=torch.uint8)
    found = loader(lambda one: {"file_name": "a.png", "image": image} | record, count=1)
    write_samples(found, names, tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    return sheet[samples.LINE : samples.LINE + HEIGHT * SCALE, : WIDTH * SCALE]


def at(picture: np.ndarray, x: float, y: float) -> list[int]:
    return picture[int(y * SCALE), int(x * SCALE)].tolist()


@pytest.mark.parametrize("form", ["polygon", "bitmask", "tensor"])
def test_boxes_and_masks_are_where_the_model_gets_them(tmp_path, form):
    polygon = np.array([10.0, 5, 30, 5, 30, 25, 10, 25])
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, 5:25, 10:30] = True
    masks = {"polygon": PolygonMasks([[polygon]]), "bitmask": BitMasks(mask), "tensor": mask}[form]
    objects = Instances((HEIGHT, WIDTH), gt_masks=masks, gt_classes=torch.tensor([1]))
    objects.gt_boxes = Boxes(torch.tensor([[10.0, 5, 60, 40]]))
    picture = picture_of(tmp_path, {"instances": objects}, Names(things=("a", "b")))
    blended = [int(0.55 * 100 + 0.45 * part) for part in samples.class_color(0)]
    assert at(picture, 20, 22) == blended and at(picture, 29.9, 24.9) == blended
    assert at(picture, 35, 30) == [100, 100, 100]  # in the box, outside the mask
    color = list(samples.class_color(0))
    assert at(picture, 10, 30) == color and at(picture, 40, 5) == color
    assert picture[40 * SCALE - 1, 40 * SCALE].tolist() == color
    assert picture[40 * SCALE, 40 * SCALE].tolist() == [100, 100, 100]


def test_semantic_labels_are_colored_except_ignored_pixels(tmp_path):
    labels = torch.full((HEIGHT, WIDTH), 255)
    labels[:20, :40] = 1
    picture = picture_of(tmp_path, {"sem_seg": labels}, Names(stuff=("sand", "sea")))
    assert at(picture, 2, 2) == [int(55 + 0.45 * part) for part in samples.class_color(1)]
    assert at(picture, 60, 30) == [100, 100, 100]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colors_are_those_of_the_channel_order(tmp_path, image_format):
    color = RED if image_format == "RGB" else RED[::-1]
    image = torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(3, HEIGHT, WIDTH)
    names = Names(image_format=image_format)
    assert at(picture_of(tmp_path, {"image": image}, names), 40, 20) == list(RED)


def test_bands_are_drawn_as_colors(tmp_path):
    image = torch.rand(5, HEIGHT, WIDTH) * 3000
    image[4, :20], image[4, 20:] = 0, 9000
    names = Names(image_format="BANDS", display_bands=(4, 0, 1))
    picture = picture_of(tmp_path, {"image": image}, names)
    assert at(picture, 40, 5)[0] == 0 and at(picture, 40, 35)[0] == 255


def test_records_without_an_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="records without an image"):
        picture_of(tmp_path, {"image": None}, Names())
