"""Suggested settings: each is compared with what Detectron2 or the real model does."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from swinv2_backbone import training_memory
from swinv2_backbone.cli import suggest as command
from swinv2_backbone.d2 import build_model, load_config
from swinv2_backbone.d2.suggestion import anchors, memory, read_objects, suggest
from swinv2_backbone.d2.suggestion.resolution import choose_resolution
from swinv2_backbone.d2.suggestion.suggest import recipe_memory

GIB = training_memory.GIB


def dataset(folder, sizes, image=(600, 800), masks=True, count=20):
    """Write a COCO file of ``count`` images that all have objects of the sizes (h, w)."""
    height, width = image
    polygon = [[0, 0, 10, 0, 10, 10]]
    annotations = [
        {"image_id": i, "category_id": 1, "bbox": [0, 0, w, h], "iscrowd": 0}
        | ({"segmentation": polygon} if masks else {})
        for i in range(count)
        for h, w in sizes
    ]
    for number, one in enumerate(annotations, 1):
        one["id"] = number
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": height, "width": width}
            for i in range(count)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "nut"}],
    }
    file = folder / "train.json"
    file.write_text(json.dumps(content))
    return str(file)


def test_crowds_and_broken_annotations_are_left_out_and_counted(tmp_path):
    file = dataset(tmp_path, [(30, 40), (0, 5)], count=2)
    content = json.loads(Path(file).read_text(encoding="utf-8"))
    content["annotations"] += [
        {"id": 9, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 10, "image_id": 99, "category_id": 1, "bbox": [0, 0, 9, 9]},
        {"id": 11, "image_id": 1, "category_id": 1, "bbox": [790, 590, 90, 90]},
    ]
    Path(file).write_text(json.dumps(content), encoding="utf-8")
    found = read_objects(file)
    assert found.boxes.tolist() == [[30, 40], [30, 40], [10, 10]]  # the last is clipped
    assert found.skipped == 3
    assert found.per_image.tolist() == [1, 2]
    assert (found.masks, found.rle, found.names) == (2, 0, ["nut"])


def test_annotations_without_a_box_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of its 20 annotations has a box"):
        read_objects(dataset(tmp_path, [(0, 0)]))


def test_overlap_with_an_anchor_is_that_of_detectron2():
    boxes, anchor, shift = np.array([[20.0, 90], [64, 64], [5, 7]]), (45.3, 22.6), 3.0
    ours = anchors.shifted_iou(boxes, anchor, shift)
    corners = [[-w / 2, -h / 2, w / 2, h / 2] for h, w in boxes]
    h, w = anchor
    moved = [[shift - w / 2, shift - h / 2, shift + w / 2, shift + h / 2]]
    theirs = pairwise_iou(Boxes(torch.tensor(corners)), Boxes(torch.tensor(moved)))[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_suggested_anchors_overlap_long_objects_in_detectron2():
    """Objects of 20 x 90 pixels, anywhere in an image."""
    boxes = np.array([[20.0, 90.0]] * 200)
    found = anchors.choose_anchors(boxes)
    assert not found.are_default and found.reached > 0.9 > 0.5 > found.default_reached
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 150, (200, 2))
    objects = Boxes(torch.tensor(np.hstack([corner, corner + boxes[:, ::-1]])).float())

    def share(sizes, ratios) -> float:
        made = DefaultAnchorGenerator(
            sizes=[[size] for size in sizes], aspect_ratios=[list(ratios)], strides=anchors.STRIDES
        )
        maps = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in anchors.STRIDES]
        best = pairwise_iou(objects, Boxes.cat(made(maps))).max(dim=1).values
        return float((best >= anchors.REACHED).float().mean())

    assert share(found.sizes, found.ratios) > 0.9
    assert share(anchors.sizes_from(32), anchors.RATIOS[0]) < 0.5


def test_ordinary_objects_keep_the_default_anchors():
    boxes = np.random.default_rng(0).uniform(24, 400, (500, 1)) * [[1.0, 1.2]]
    assert anchors.choose_anchors(boxes).are_default


@pytest.mark.parametrize(
    "size, image, short",
    [(80, (600, 800), 512), (20, (600, 800), 800), (4, (600, 800), 1024), (30, (100, 100), 256)]
    + [(4, (100, 100), 256), (10, (4000, 6000), 1536)],
)
def test_images_are_as_large_as_small_objects_need_and_enlarged_at_most_twice(
    size, image, short, tmp_path
):
    found = choose_resolution(read_objects(dataset(tmp_path, [(size, size)], image)))
    assert found.short == short
    assert found.sees_small == (size * short / min(image) >= 24)
    assert found.small == pytest.approx(size * short / min(image), rel=0.01)
    assert found.short_edges[-1] == short and found.longest >= 5 / 3 * short


def test_counted_heads_save_as_many_bytes_as_real_ones():
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"]
    cfg = load_config("configs/mask_rcnn_swinv2_demo.yaml", opts)
    real = memory._head_bytes(build_model(cfg).train(), cfg, (60, 90))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        fake = build_model(cfg).train()
    with training_memory.without_memory():
        training_memory.give_shapes(fake)
        assert memory._head_bytes(fake, cfg, (60, 90)) == real > 0


def test_memory_grows_with_images_and_objects_and_checkpointing_saves_some():
    plain = recipe_memory("mask_rcnn_swinv2", (512, 864), False)
    assert plain.total(3) - plain.total(2) == pytest.approx(plain.per_image)
    assert recipe_memory("mask_rcnn_swinv2", (512, 864), True).per_image < plain.per_image
    assert recipe_memory("mask_rcnn_swinv2", (512, 864), False, masks=False).fixed < plain.fixed
    crowded = recipe_memory("mask_rcnn_swinv2", (512, 864), False, objects=110)
    cells = sum(-(-512 // s) * -(-864 // s) for s in anchors.STRIDES)
    assert crowded.per_image - plain.per_image == pytest.approx(100 * 24 * 3 * cells)


def test_less_memory_is_met_with_parts_then_checkpointing_then_smaller_images(tmp_path):
    objects = read_objects(dataset(tmp_path, [(20, 20)]))
    plenty, some, little = (suggest(objects, gib * GIB) for gib in (40, 5.5, 2.6))
    assert "SOLVER.ACCUMULATE" not in plenty.settings
    assert some.settings["SOLVER.ACCUMULATE"] == 8
    assert some.settings["INPUT.MIN_SIZE_TEST"] == 800 > little.settings["INPUT.MIN_SIZE_TEST"]
    with pytest.raises(ValueError, match="1.0 GiB are too little: mask_rcnn_swinv2 .* needs"):
        suggest(objects, GIB)


def test_the_learning_rate_follows_the_square_root_of_the_batch(tmp_path):
    objects = read_objects(dataset(tmp_path, [(80, 80)]))
    found = suggest(objects, 40 * GIB, gpus=2, batch=64).settings
    assert found["SOLVER.BASE_LR"] == 2e-4
    assert found["SOLVER.MAX_ITER"] == 1500 * 16 // 64
    with pytest.raises(ValueError, match="batch of 5 images cannot be divided among 2 GPUs"):
        suggest(objects, 40 * GIB, gpus=2, batch=5)


def test_the_written_config_is_one_to_train_with(tmp_path, capsys):
    file = dataset(tmp_path, [(20, 90)] * 150, masks=False)
    target = tmp_path / "nuts.yaml"
    command.main([file, "--images", str(tmp_path), "--memory", "24GB", "--output", str(target)])
    cfg = load_config(str(target), ["MODEL.DEVICE", "cpu"])
    assert not cfg.MODEL.MASK_ON and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert file == cfg.DATASETS.CUSTOM.TRAIN.JSON
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 200
    assert len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0]) == 5
    assert yaml.safe_load(target.read_text())["_BASE_"] == "mask_rcnn_swinv2.yaml"
    assert "3000 objects of 1 classes in 20 images" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="exists"):
        command.main([file, "--memory", "24GB", "--output", str(target)])


@pytest.mark.parametrize(
    "argv, message",
    [
        (["absent.json", "--memory", "1GB"], "no file or folder 'absent.json'"),
        ([], "give DATASET"),
        (["tests", "--gpus", "0", "--memory", "1GB"], "must be positive"),
        (["tests", "--memory", "1GB", "--output", "x.json"], "ends in .yaml"),
    ],
)
def test_arguments_that_cannot_work_are_named_at_once(argv, message):
    with pytest.raises(SystemExit, match=message):
        command.main(argv)


@pytest.mark.parametrize("text", ["12", "GB", "0GB", "12XB"])
def test_a_size_needs_a_number_and_a_unit(text, capsys):
    with pytest.raises(SystemExit):
        command.main(["x.json", "--memory", text])
    assert f"{text!r} is no size" in capsys.readouterr().err


def test_without_a_gpu_a_small_model_is_suggested_that_trains_from_scratch(tmp_path):
    file = dataset(tmp_path, [(80, 80)])
    target = tmp_path / "nuts.yaml"
    with mock.patch.object(command, "memory_of_gpu", return_value=None):
        command.main([file, "--images", str(tmp_path), "--output", str(target)])
    cfg = load_config(str(target))
    assert cfg.MODEL.DEVICE == "cpu" and not cfg.MODEL.WEIGHTS and not cfg.SOLVER.AMP.ENABLED
    assert cfg.MODEL.SWINV2.EMBED_DIM == 32 and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[0] == [32]  # not the demo's
    assert not cfg.DATASETS.CUSTOM.TEST.JSON
    assert file == cfg.DATASETS.CUSTOM.TRAIN.JSON
