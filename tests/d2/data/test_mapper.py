"""From a dataset's record to what a model takes."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from PIL import Image

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper

H, W = 60, 80
PALETTE = [0, 0, 0, 250, 250, 250, 10, 200, 30]  # its brightness is nothing like 0, 1, 2


def config(*opts: str):
    return load_config(
        "",
        [
            *("MODEL.DEVICE", "cpu", "INPUT.FORMAT", "RGB", "INPUT.RANDOM_FLIP", "none"),
            *("INPUT.MIN_SIZE_TRAIN", f"({H},)", "INPUT.MIN_SIZE_TEST", str(H)),
            *opts,
        ],
    )


@pytest.fixture
def labels() -> np.ndarray:
    """(H, W): 2 above, 1 below, 0 in a corner."""
    found = np.ones((H, W), np.uint8)
    found[: H // 2] = 2
    found[:10, :10] = 0
    return found


@pytest.fixture
def record(tmp_path, labels) -> dict:
    """An image of noise with one object of 20 x 10 pixels, and its labels as a palette image."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image[:, :, ::-1])
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette(PALETTE)
    picture.save(tmp_path / "labels.png")
    box = [30, 20, 50, 30]
    corners = [30, 20, 50, 20, 50, 30, 30, 30]
    thing = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 3, "iscrowd": 0}
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "height": H,
        "width": W,
        "annotations": [{**thing, "segmentation": [corners]}, {**thing, "iscrowd": 1}],
    }


def pixels(record: dict) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(record["file_name"]))).permute(2, 0, 1)


def test_image_labels_and_objects_reach_the_model(record, labels):
    mapped = DatasetMapper(config("MODEL.MASK_ON", "True"), is_train=True)(record)
    assert torch.equal(mapped["image"], pixels(record))
    assert torch.equal(mapped["sem_seg"], torch.from_numpy(labels.astype(np.int64)))
    (box,) = mapped["instances"].gt_boxes.tensor.tolist()  # the crowd is not learned
    assert box == [30, 20, 50, 30] and mapped["instances"].gt_classes.tolist() == [3]
    assert mapped["instances"].has("gt_masks")


def test_a_test_image_comes_without_its_objects_and_the_record_stays_as_it_was(record):
    before = {**record}
    mapped = DatasetMapper(config(), is_train=False)(record)
    assert "annotations" not in mapped and "instances" not in mapped
    assert record == before


def test_bgr_models_get_bgr(record):
    mapped = DatasetMapper(config("INPUT.FORMAT", "BGR"), is_train=False)(record)
    assert torch.equal(mapped["image"], pixels(record).flip(0))


def test_deep_images_are_scaled_not_clipped(record, tmp_path):
    deep = np.linspace(0, 65535, H * W).astype(np.uint16).reshape(H, W)
    cv2.imwrite(str(tmp_path / "image.png"), deep)
    image = DatasetMapper(config(), is_train=False)(record)["image"]
    expected = torch.from_numpy((deep / 257).round().astype(np.int64)).expand(3, H, W)
    assert (image.long() - expected).abs().max() <= 1


def test_more_than_255_classes_are_resized_by_nearest_neighbours(record, labels, tmp_path):
    many = labels.astype(np.uint16) * 300
    cv2.imwrite(str(tmp_path / "labels.png"), many)
    mapped = DatasetMapper(config("INPUT.MIN_SIZE_TRAIN", f"({2 * H},)"), is_train=True)(record)
    expected = many.astype(np.int64).repeat(2, axis=0).repeat(2, axis=1)
    assert torch.equal(mapped["sem_seg"], torch.from_numpy(expected))


def test_an_image_of_another_size_is_refused(record):
    with pytest.raises(SizeMismatchError, match="image.png"):
        DatasetMapper(config(), is_train=True)({**record, "width": W - 1})


LSJ = [*("INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.SIZE", "64", "MODEL.MASK_ON", "True")]


def test_large_scale_jitter_scales_and_crops_but_does_not_pad(record):
    np.random.seed(0)
    mapper = DatasetMapper(config(*LSJ), is_train=True)
    sizes = [tuple(mapper(record)["image"].shape[1:]) for _ in range(60)]
    assert all(h <= 64 and w <= 64 for h, w in sizes)
    assert any(h == w == 64 for h, w in sizes)  # cropped
    widths = [w for _, w in sizes]
    assert min(widths) < 16  # 0.1 x 64 = 6.4 at least; one in eight is below 16
    assert any(h < 48 and abs(w * H / W - h) < 2 for h, w in sizes)  # whole, with its aspect


def test_boxes_after_a_crop_are_those_of_what_it_left_of_the_masks(record):
    # A triangle: what a crop leaves of it is smaller than what it leaves of its box.
    record["annotations"][0]["segmentation"] = [[30, 20, 50, 20, 30, 30]]
    np.random.seed(0)
    mapper = DatasetMapper(config(*LSJ), is_train=True)
    checked = 0
    for _ in range(40):
        instances = mapper(record)["instances"]
        if len(instances):
            own = instances.gt_masks.get_bounding_boxes().tensor
            torch.testing.assert_close(instances.gt_boxes.tensor, own)
            checked += 1
    assert checked > 5


def augmentations(*opts: str) -> list[str]:
    size = ("INPUT.CROP.SIZE", "(30, 30)")
    cfg = config("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute", *size, *opts)
    augs = DatasetMapper(cfg, is_train=True).augmentations.augs
    return [type(one).__name__ for one in augs]


def test_a_detector_crops_before_it_resizes_and_a_segmentor_after():
    resize = "ResizeShortestEdge"
    assert augmentations() == ["RandomCrop", resize]
    semantic = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "INPUT.COLOR_AUG_SSD", "True"]
    crop = "RandomCrop_CategoryAreaConstraint"
    assert augmentations(*semantic) == [resize, crop, "ColorAugmentation"]
    flip = ["INPUT.RANDOM_FLIP", "horizontal"]
    assert augmentations(*semantic, *flip)[-1] == "RandomFlip"


def test_no_class_fills_more_of_a_crop_than_allowed(record):
    np.random.seed(0)
    mapper = DatasetMapper(
        config(
            *("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "INPUT.CROP.ENABLED", "True"),
            *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(30, 30)"),
            *("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", "0.75"),
        ),
        is_train=True,
    )
    for _ in range(20):
        crop = mapper({k: v for k, v in record.items() if k != "annotations"})["sem_seg"]
        assert crop.shape == (30, 30)
        assert torch.bincount(crop.flatten()).max() < 0.75 * 900


def test_colors_vary_in_training_alone_and_leave_labels_alone(record, labels):
    cfg = config("INPUT.COLOR_AUG_SSD", "True")
    mapped = [DatasetMapper(cfg, is_train=True)(record) for _ in range(5)]
    assert len({one["image"].float().mean().item() for one in mapped}) > 1
    assert all((one["sem_seg"].numpy() == labels).all() for one in mapped)
    assert torch.equal(DatasetMapper(cfg, is_train=False)(record)["image"], pixels(record))


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            ["INPUT.LSJ.MIN_SCALE", "3.0"],
            "INPUT.LSJ.MIN_SCALE 3.0 must not exceed INPUT.LSJ.MAX_SCALE 2.0",
        ),
        (["INPUT.CROP.ENABLED", "True"], "INPUT.CROP.ENABLED False"),
    ],
)
def test_impossible_jitter_is_refused(opts, words):
    with pytest.raises(ValueError, match=words):
        config("INPUT.LSJ.ENABLED", "True", *opts)


EMPTY = {
    "no annotations": lambda annotations: [],
    "crowds alone": lambda annotations: annotations[1:],
}
SIZING = {
    "resize": [],
    "crop": ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "(0.5, 0.5)"],
    "jitter": ["INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.SIZE", "64"],
}


@pytest.mark.parametrize("objects", EMPTY)
@pytest.mark.parametrize("sizing", SIZING)
@pytest.mark.parametrize("form", ["polygon", "bitmask", None])
def test_an_image_without_objects_has_all_fields_of_one_with_objects(record, form, sizing, objects):
    masks = [] if form is None else ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", form]
    mapper = DatasetMapper(config(*masks, *SIZING[sizing]), is_train=True)
    # A crop may leave nothing of the object, but its fields stay.
    full = mapper(record)["instances"].get_fields()
    record["annotations"] = EMPTY[objects](record["annotations"])
    mapped = mapper(record)
    empty = mapped["instances"]
    assert len(empty) == 0 and "annotations" not in mapped
    assert empty.image_size == tuple(mapped["image"].shape[1:])
    fields = empty.get_fields()
    assert {key: type(value) for key, value in fields.items()} == {
        key: type(value) for key, value in full.items()
    }
    assert fields["gt_boxes"].tensor.shape == (0, 4)
    assert fields["gt_boxes"].tensor.dtype == full["gt_boxes"].tensor.dtype
    assert fields["gt_classes"].dtype == full["gt_classes"].dtype
