"""Images of any number of bands: read as they are stored, checked by their headers, drawn."""

import json
import re

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.loading.bands import as_picture, bands_header, read_bands
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.images import OTHER_SIZE, REFUSED, UNSUPPORTED
from swinv2_backbone.d2.data.validation.semantic import check_semantic

H, W, N = 20, 30, 9
DTYPES = ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64", "bool"]


def numbers(dtype: str = "uint16", bands: int = N) -> np.ndarray:
    """(H, W, bands) of numbers over the whole range of a dtype, all exact in float32."""
    random = np.random.default_rng(0)
    if dtype == "bool":
        return random.integers(0, 2, (H, W, bands)).astype(bool)
    if dtype.startswith("float"):
        return (random.normal(size=(H, W, bands)) * 1000).astype(np.float16).astype(dtype)
    low, high = np.iinfo(dtype).min, min(np.iinfo(dtype).max, 2**24)
    return random.integers(low, high, (H, W, bands)).astype(dtype)


def write_tiff(path, pixels: np.ndarray, planar: str = "contig") -> None:
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [one for one in DTYPES if one != "bool"])
def test_a_tiff_is_read_as_it_is_stored(dtype, planar, tmp_path):
    pixels = numbers(dtype)
    write_tiff(tmp_path / "a.tif", pixels, planar)
    found = read_bands(tmp_path / "a.tif", N)
    assert found.dtype == np.float32 and np.array_equal(found, pixels.astype(np.float32))
    header = bands_header(tmp_path / "a.tif", N)
    assert (header.height, header.width, header.refused) == (H, W, "")


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_read_with_its_bands_first_or_last(dtype, tmp_path):
    pixels = numbers(dtype)
    for name, stored in (("last", pixels), ("first", np.moveaxis(pixels, 2, 0))):
        np.save(tmp_path / f"{name}.npy", stored)
        found = read_bands(tmp_path / f"{name}.npy", N)
        assert found.dtype == np.float32 and np.array_equal(found, pixels.astype(np.float32))
        header = bands_header(tmp_path / f"{name}.npy", N)
        assert (header.height, header.width, header.refused) == (H, W, "")


def test_an_array_without_an_axis_of_bands_has_one_band(tmp_path):
    np.save(tmp_path / "a.npy", numbers()[:, :, 0])
    assert np.array_equal(read_bands(tmp_path / "a.npy", 1)[:, :, 0], numbers()[:, :, 0])
    assert np.array_equal(read_bands(tmp_path / "a.npy"), read_bands(tmp_path / "a.npy", 1))


def test_another_number_of_bands_is_refused_with_both_numbers(tmp_path):
    write_tiff(tmp_path / "a.tif", numbers())
    np.save(tmp_path / "a.npy", numbers())
    for name, words in (("a.tif", "9 bands"), ("a.npy", r"an array of shape \(20, 30, 9\)")):
        text = rf"{name}: it has {words}, but MODEL.PIXEL_MEAN .* has 4 numbers"
        with pytest.raises(ValueError, match=text):
            read_bands(tmp_path / name, 4)
        assert "has 4 numbers" in bands_header(tmp_path / name, 4).refused


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (
            lambda path: np.save(path, np.full((4, 5, N), np.nan)),
            r"infinity in pixels \(20\)",
        ),
        (
            lambda path: np.save(path, np.full((4, 5, N), 1e300)),
            r"infinity in pixels \(20\)",
        ),
        (lambda path: np.save(path, np.zeros((4, 5, N, 2))), r"shape \(4, 5, 9, 2\): an image is"),
        (lambda path: np.save(path, np.zeros((0, 5, N))), r"shape \(0, 5, 9\)"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "damaged"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "damaged"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "reads TIFF and .npy alone"),
    ],
)
def test_what_cannot_be_read_is_an_os_error_that_names_the_file(write, words, tmp_path):
    write(tmp_path / "a.npy")
    with pytest.raises(OSError, match=f"a.npy.*{words}"):
        read_bands(tmp_path / "a.npy", N)


def test_a_cut_array_is_damaged_by_its_header_already(tmp_path):
    np.save(tmp_path / "a.npy", numbers())
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-10])
    with pytest.raises(OSError, match="damaged"):
        bands_header(tmp_path / "a.npy", N)


def test_complex_numbers_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5, N), complex))
    assert "complex128, not real numbers" in bands_header(tmp_path / "a.npy", N).refused
    with pytest.raises(ValueError, match="not real numbers"):
        read_bands(tmp_path / "a.npy", N)


# ---- Drawing


def test_the_chosen_bands_are_drawn_and_stretched_by_percentiles():
    pixels = np.zeros((10, 101, N), np.float32)
    ramp = np.arange(101)
    pixels[:, :, 4], pixels[:, :, 2], pixels[:, :, 0] = 50 * ramp, 10_000 - ramp, 7
    picture = as_picture(pixels, (4, 2, 0))
    assert picture.dtype == np.uint8 and picture.shape == (10, 101, 3)
    blue, green, red = (picture[0, :, channel].astype(int) for channel in range(3))
    assert (red[:3], red[50], red[-3:]) == (pytest.approx(0), 128, pytest.approx(255))
    assert np.abs(green - red[::-1]).max() <= 1  # the ramp turned around
    assert not blue.any()  # one value everywhere


def test_few_bands_are_drawn_as_gray_and_many_by_their_first_three():
    pixels = numbers().astype(np.float32)
    gray = as_picture(pixels[:, :, :2])
    assert (gray == gray[:, :, :1]).all() and gray.any()
    assert np.array_equal(as_picture(pixels), as_picture(pixels, (0, 1, 2)))


# ---- The mapper


def config(*opts: str):
    mean = ["MODEL.PIXEL_MEAN", str([0.0] * N), "MODEL.PIXEL_STD", str([1.0] * N)]
    return load_config("", ["MODEL.DEVICE", "cpu", "INPUT.FORMAT", "BANDS", *mean, *opts])


@pytest.fixture
def record(tmp_path) -> dict:
    """Band i of a pixel is 1000 i + its column, which tells where the pixel came from."""
    pixels = np.arange(W)[None, :, None] + 1000 * np.arange(N)[None, None] + np.zeros((H, 1, 1))
    write_tiff(tmp_path / "a.tif", pixels.astype(np.int16))
    box = {"bbox": [5, 4, 15, 12], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    box["segmentation"] = [[5, 4, 15, 4, 15, 12, 5, 12]]
    return {"file_name": str(tmp_path / "a.tif"), "height": H, "width": W, "annotations": [box]}


def test_pixels_reach_the_model_unscaled_in_float32(record):
    mapped = DatasetMapper(config("INPUT.MIN_SIZE_TEST", "0"), is_train=False)(record)
    image = mapped["image"]
    assert image.dtype == torch.float32 and image.shape == (N, H, W)
    assert torch.equal(image[3, 0], 3000 + torch.arange(W).float())


@pytest.mark.parametrize(
    "opts",
    [
        ["INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.RANDOM_FLIP", "none"],
        ["INPUT.MIN_SIZE_TRAIN", "(20,)", "INPUT.RANDOM_FLIP", "horizontal"],
        ["INPUT.MIN_SIZE_TRAIN", "(20,)", "INPUT.RANDOM_FLIP", "vertical"],
        ["INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.SIZE", "32"],
        ["INPUT.CROP.ENABLED", "True", "INPUT.MIN_SIZE_TRAIN", "(24,)"],
    ],
)
def test_every_augmentation_moves_all_bands_and_the_objects_alike(opts, record):
    np.random.seed(0)
    mapper = DatasetMapper(config(*opts, "MODEL.MASK_ON", "True"), is_train=True)
    for _ in range(20):
        mapped = mapper(record)
        image = mapped["image"]
        assert image.dtype == torch.float32 and len(image) == N
        for band in range(N):  # float32 rounds interpolated numbers of up to 8000
            torch.testing.assert_close(image[band] - 1000 * band, image[0], atol=0.01, rtol=0)
        for x0, _, x1, _ in mapped["instances"].gt_boxes.tensor.round().int().tolist():
            columns = image[0, 0, x0:x1]  # of the original, which the object has from 5 to 15
            assert columns.min() > 3.5 and columns.max() < 15.5


@pytest.mark.parametrize("side", [31, 64, 300])
def test_colors_as_bands_are_resized_like_an_rgb_image(side, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    record = {"file_name": str(tmp_path / "a.tif"), "height": 120, "width": 150}
    one, other = (
        DatasetMapper(
            is_train=False,
            augmentations=[T.ResizeShortestEdge(side), T.RandomFlip(1.0)],
            image_format=image_format,
        )(record)["image"]
        for image_format in ("RGB", "BANDS")
    )
    assert one.dtype == torch.uint8 and other.dtype == torch.float32
    torch.testing.assert_close(other, one.float(), atol=1.01, rtol=0)  # Pillow rounds twice


def test_a_mapper_refuses_another_number_of_bands(record):
    mapper = DatasetMapper(
        is_train=False, augmentations=[T.NoOpTransform()], image_format="BANDS", bands=4
    )
    with pytest.raises(ValueError, match="a.tif: it has 9 bands"):
        mapper(record)


# ---- The checks of datasets, by headers alone


def coco(name: str, size=(H, W)) -> dict:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 6], "area": 48, "iscrowd": 0}
    box["segmentation"] = [[1, 1, 9, 1, 9, 7, 1, 7]]
    return {
        "images": [{"id": 1, "file_name": name, "height": size[0], "width": size[1]}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "ship"}],
    }


def errors(content: dict, folder, bands: int | None) -> list:
    _, report = check_coco(
        content,
        "a.json",
        str(folder),
        masks=True,
        mask_format="polygon",
        for_evaluation=False,
        bands=bands,
    )
    return list(report.errors)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_a_dataset_is_checked_for_its_number_of_bands(name, tmp_path):
    write_tiff(tmp_path / "a.tif", numbers())
    np.save(tmp_path / "a.npy", numbers())
    content = coco(name)
    assert errors(content, tmp_path, N) == []
    assert errors(content, tmp_path, 4) == [REFUSED]
    assert errors(content, tmp_path, None) in ([REFUSED], [UNSUPPORTED])  # RGB
    assert errors(coco(name, (W, H)), tmp_path, N) == [OTHER_SIZE]


def test_a_semantic_dataset_finds_arrays_and_checks_their_bands(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "images" / "a.npy", numbers())
    labels = np.arange(H * W).reshape(H, W) % 2
    cv2.imwrite(str(tmp_path / "labels" / "a.png"), labels.astype(np.uint8))
    folders = (str(tmp_path / "images"), str(tmp_path / "labels"))
    for bands, expected in ((N, []), (4, [REFUSED])):
        records, report, _ = check_semantic(
            *folders, ["x", "y"], 255, for_evaluation=False, bands=bands
        )
        assert list(report.errors) == expected
        assert [record["height"] for record in records] == ([H] if not expected else [])


def test_registering_names_the_file_and_both_numbers(tmp_path):
    write_tiff(tmp_path / "a.tif", numbers())
    (tmp_path / "a.json").write_text(json.dumps(coco("a.tif")))
    words = re.escape("a.tif: it has 9 bands, but MODEL.PIXEL_MEAN (pixel_mean) has 12 numbers")
    with pytest.raises(ValueError, match=words):
        register_coco("bands_wrong", str(tmp_path / "a.json"), str(tmp_path), bands=12)
