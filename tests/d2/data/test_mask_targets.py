"""Targets of mask classification: a mask and a class for each object, class or segment."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.loading.mask_targets import instance_targets, semantic_targets

H, W = 40, 60
SEGMENTS = {7: (slice(5, 15), slice(10, 30)), 300: (slice(20, 36), slice(5, 25))}  # id -> place
CROWD = (slice(0, 4), slice(40, 60))


@pytest.fixture
def record(tmp_path) -> dict:
    """An image with two objects, the first as a polygon and the second as RLE, and a crowd."""
    labels = np.full((H, W), 3, np.uint8)  # the class of the background
    ids = np.full((H, W), 70_000, np.int64)
    annotations, segments = [], [{"id": 70_000, "category_id": 3, "iscrowd": 0}]
    for place, (number, (rows, cols)) in enumerate([*SEGMENTS.items(), (9, CROWD)]):
        labels[rows, cols], ids[rows, cols] = 255 if number == 9 else place, number
        mask = np.zeros((H, W), np.uint8)
        mask[rows, cols] = 1
        x, y, x2, y2 = cols.start, rows.start, cols.stop, rows.stop
        annotations.append(
            {
                "bbox": [x, y, x2, y2],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": place,
                "iscrowd": int(number == 9),
                "segmentation": coco_mask.encode(np.asfortranarray(mask))
                if place
                else [[x, y, x2, y, x2, y2, x, y2]],
            }
        )
        segments.append({"id": number, "category_id": place, "iscrowd": int(number == 9)})
    cv2.imwrite(str(tmp_path / "image.png"), np.full((H, W, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    colors = np.stack([ids >> shift & 255 for shift in (16, 8, 0)], axis=2).astype(np.uint8)  # BGR
    cv2.imwrite(str(tmp_path / "segments.png"), colors)
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "pan_seg_file_name": str(tmp_path / "segments.png"),
        "segments_info": segments,
        "annotations": annotations,
        "height": H,
        "width": W,
    }


def mapper(task: str, *opts: str) -> DatasetMapper:
    own = ["INPUT.MIN_SIZE_TRAIN", f"({H},)", "INPUT.RANDOM_FLIP", "none", "MODEL.DEVICE", "cpu"]
    own += ["INPUT.MASK_TARGETS", task, "INPUT.MASK_FORMAT", "bitmask", "MODEL.MASK_ON", "True"]
    return DatasetMapper(load_config("", [*own, *opts]), is_train=True)


def expected(task: str) -> dict[int, torch.Tensor]:
    """Class -> its mask."""
    masks = {}
    for place, (rows, cols) in enumerate(SEGMENTS.values()):
        masks[place] = torch.zeros(H, W, dtype=torch.bool)
        masks[place][rows, cols] = True
    if task != "instance":  # the background is a class and a segment, but no object
        masks[3] = ~(masks[0] | masks[1])
        masks[3][CROWD] = False
    return masks


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_targets_are_the_masks_of_objects_classes_and_segments(task, record):
    targets = mapper(task)(record)["instances"]
    assert targets.gt_masks.dtype == torch.bool
    found = dict(zip(targets.gt_classes.tolist(), targets.gt_masks))
    assert len(found) == len(targets) and found.keys() == expected(task).keys()
    for label, mask in expected(task).items():
        assert torch.equal(found[label], mask), label
        rows, cols = torch.where(mask)
        box = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
        place = targets.gt_classes.tolist().index(label)
        assert targets.gt_boxes.tensor[place].tolist() == box


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_targets_are_augmented_as_the_image_is(task, record):
    """Of a flipped image, twice as large, at the same places."""
    opts = ["INPUT.MIN_SIZE_TRAIN", f"({2 * H},)", "INPUT.RANDOM_FLIP", "horizontal"]
    for seed in range(8):  # until an image is flipped
        np.random.seed(seed)
        found = mapper(task, *opts)(record)
        assert found["instances"].image_size == tuple(found["image"].shape[-2:]) == (2 * H, 2 * W)
        mask = found["instances"].gt_masks[found["instances"].gt_classes == 1][0]
        if mask[60, 2 * W - 20] and not mask[60, 20]:
            break
    else:
        pytest.fail("no image was flipped")
    wanted = expected(task)[1].repeat_interleave(2, 0).repeat_interleave(2, 1).flip(1)
    assert (mask != wanted).sum() <= 0.1 * wanted.sum()  # up to the edge


def test_what_is_outside_of_a_crop_is_left_out(record):
    opts = ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute"]
    crop = mapper("semantic", *opts, "INPUT.CROP.SIZE", "(8, 8)")
    sizes = {len(crop(record)["instances"]) for _ in range(20)}
    assert min(sizes) >= 0 and max(sizes) < 3
    assert all(crop(record)["image"].shape[-2:] == (8, 8) for _ in range(3))  # not enlarged


def test_polygons_become_the_masks_that_detectron2_draws():
    outline = [[10.0, 5.0, 30.0, 5.0, 20.0, 15.0]]
    thing = Instances((H, W), gt_classes=torch.tensor([4, 4]))
    thing.gt_masks = PolygonMasks([outline, [[1.0, 1.0, 1.2, 1.0, 1.1, 1.2]]])
    targets = instance_targets(thing)  # the second is smaller than a pixel
    drawn = BitMasks.from_polygon_masks(PolygonMasks([outline]), H, W).tensor
    assert targets.gt_classes.tolist() == [4] and torch.equal(targets.gt_masks, drawn)


def test_an_image_without_classes_has_no_targets():
    targets = semantic_targets(torch.full((H, W), 255), ignored=255)
    assert len(targets) == 0
    assert targets.gt_masks.shape == (0, H, W) and targets.gt_boxes.tensor.shape == (0, 4)


def test_a_crowd_alone_has_no_targets(record):
    record["annotations"] = record["annotations"][2:]
    targets = mapper("instance")(record)["instances"]
    assert len(targets) == 0 and targets.gt_masks.shape == (0, H, W)


def test_images_to_test_on_have_no_targets(record):
    cfg = load_config("", ["INPUT.MASK_TARGETS", "panoptic", "MODEL.DEVICE", "cpu"])
    del record["pan_seg_file_name"]
    assert "instances" not in DatasetMapper(cfg, is_train=False)(record)


def test_a_dataset_without_the_field_and_a_model_without_masks_are_refused(record):
    del record["pan_seg_file_name"]
    with pytest.raises(ValueError, match="INPUT.MASK_TARGETS.*'pan_seg_file_name'.*image.png"):
        mapper("panoptic")(record)
    with pytest.raises(ValueError, match="MODEL.MASK_ON True"):
        mapper("instance", "MODEL.MASK_ON", "False")
    with pytest.raises(ValueError, match="one of none, instance, semantic, panoptic"):
        mapper("objects")
