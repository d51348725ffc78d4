"""Values of semantic label images that look wrong, and sound ones that look unusual."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from swinv2_backbone.d2.data.datasets.semantic import register_semantic
from swinv2_backbone.d2.data.validation.label_values import pixels_by_value

BINARY = ["background", "crack"]
VOC = ["background", *(f"class {number}" for number in range(1, 21))]
STREET = ["road", "sidewalk", "building", "pole", "sky", "person", "train"]
CITYSCAPES = [f"class {number}" for number in range(19)]


def rows(*values: int, height: int = 6, width: int = 8) -> np.ndarray:
    """Labels of which each row has one of the values, in turn."""
    column = np.resize(np.array(values, np.int32), height)
    labels = np.repeat(column[:, None], width, axis=1)
    return labels.astype(np.uint8 if labels.max() <= 255 else np.uint16)


@pytest.fixture
def register(tmp_path):
    """Writes and registers label images of given names; returns the names of the classes."""
    name = f"{tmp_path.name}_labels"

    def run(labels: dict[str, np.ndarray] | list[np.ndarray], names: list[str], **how) -> str:
        if isinstance(labels, list):
            labels = {f"{number}.png": one for number, one in enumerate(labels)}
        for file, values in labels.items():
            for folder, pixels in (("images", np.zeros_like(values)), ("labels", values)):
                path = tmp_path / folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
        (tmp_path / "names.txt").write_text("\n".join(names))
        folders = (tmp_path / "images", tmp_path / "labels", tmp_path / "names.txt")
        register_semantic(name, *folders, **how)
        return name

    yield run
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def refused(register, labels: list[np.ndarray], names: list[str], *words: str, **how) -> None:
    with pytest.raises(ValueError) as error:
        register(labels, names, **how)
    assert [word for word in words if word not in str(error.value)] == []


# ---- Sound data

SOUND = {
    "masks of 0 and 1": ([rows(0, 1), rows(0)], BINARY),
    "masks with ignored borders": ([rows(0, 255, 1, 255), rows(0)], BINARY),
    "ignored areas beside objects": ([rows(0, 1, 255), rows(0, 255)], BINARY),
    "Pascal VOC, few of its classes": ([rows(0, 255, 15), rows(0, 255, 7, 7)], VOC),
    "streets with void and no train": ([rows(0, 1, 2, 255), rows(0, 3, 4, 5)], STREET),
    "no pixel of the background": ([rows(1, 2, 255)], ["background", "field", "forest"]),
    "alphabetical, without the first": ([rows(1, 2, 3)], ["airplane", "bird", "car", "dog"]),
    "one class of interest": ([rows(0, 255), rows(255)], ["road"]),
    "one class alone": ([rows(0)], ["road"]),
    "scribbles": ([rows(*[255] * 5, 0), rows(*[255] * 5, 1)], BINARY),
    "a class in one pixel": ([rows(0), np.pad([[1]], ((0, 5), (0, 7))).astype(np.uint8)], BINARY),
    "all classes of ADE20K": (
        [rows(*range(150), height=150), rows(255)],
        list(map(str, range(150))),
    ),
}


@pytest.mark.parametrize("for_evaluation", [False, True])
@pytest.mark.parametrize("kind", SOUND)
def test_sound_data_are_not_stopped(kind, for_evaluation, register):
    labels, names = SOUND[kind]
    name = register(labels, names, for_evaluation=for_evaluation)
    assert len(DatasetCatalog.get(name)) == len(labels)


QUIET = ["masks of 0 and 1", "masks with ignored borders", "one class of interest", "scribbles"]


@pytest.mark.parametrize("kind", [*QUIET, "a class in one pixel", "all classes of ADE20K"])
def test_the_most_usual_data_get_no_note(kind, register, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register(*SOUND[kind])
    assert caplog.text == ""


@pytest.mark.parametrize("values", [(0,), (0, 255), (1, 255)])
def test_a_test_set_may_have_pixels_of_one_class(values, register):
    register([rows(*values)], BINARY, for_evaluation=True)


def test_sixteen_bit_labels_may_have_many_classes(register):
    names = [f"species {number}" for number in range(300)]
    register([rows(*range(300), 65535, height=301)], names, ignore_value=65535)


def test_palette_labels_count_by_index(register, tmp_path):
    register([rows(0, 1)], BINARY)
    palette = Image.fromarray(rows(0, 1, 1)).convert("P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    palette.save(tmp_path / "labels" / "0.png")
    register({}, BINARY)


# ---- Faults


def test_masks_of_0_and_255_are_refused_and_the_remedy_works(register):
    labels = [rows(0, 255, 255), rows(0)]
    words = ["masks of 0 and 255; as 255 is the ignore value, only background would be learned"]
    words += ["64 pixels of 0 (background), 32 ignored", "write 1 for crack"]
    refused(register, labels, BINARY, *words, "labels[labels == 255] = 1")
    refused(register, labels, [*BINARY, "leaf"], *words)
    for label in labels:
        label[label == 255] = 1
    register(labels, BINARY)


def test_masks_of_0_and_255_in_a_test_set_are_noted(register, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register([rows(0, 255)], BINARY, for_evaluation=True)
    assert "masks of 0 and 255" in caplog.text


def test_masks_of_0_and_255_without_an_ignore_value_name_the_numbers(register):
    refused(register, [rows(0, 255)], BINARY, "gray levels", "write 0 to 1", ignore_value=254)


def test_gray_levels_for_viewing_are_recognized(register):
    refused(register, [rows(0, 127, 255)], VOC[:3], "values 0, 127, 255 look like gray levels")
    refused(register, [rows(0, 85, 170, 255)], VOC[:4], "write 0 to 3")
    refused(register, [rows(0, 7, 9)], VOC[:3], "name them in NAMES")


def test_smoothed_masks_are_recognized(register):
    refused(register, [rows(*range(60), height=60)], BINARY, "without interpolation")


def test_labels_of_a_single_class_are_refused(register):
    refused(register, [rows(0)], BINARY, "one class has all pixels", "48 pixels of 0 (background)")
    refused(register, [rows(1, 255)], BINARY, "one class has all pixels", "24 pixels of 1 (crack)")


def test_labels_that_cannot_be_read_are_not_called_unlabeled(register):
    colors = np.zeros((6, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="label images with colors") as error:
        register([colors], ["ground", "fig"])
    assert "255 everywhere" not in str(error.value)


def test_a_fault_of_another_file_is_not_taken_for_a_missing_class(register, tmp_path):
    register([rows(0), rows(0, 1)], BINARY)
    (tmp_path / "labels" / "1.png").write_bytes(b"damaged")
    with pytest.raises(ValueError) as error:
        register({}, BINARY)
    assert "damaged" in str(error.value) and "one class" not in str(error.value)


@pytest.mark.parametrize("for_evaluation", [False, True])
def test_classes_without_a_pixel_are_noted(for_evaluation, register, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register([rows(0, 1, 2), rows(4, 5)], STREET, for_evaluation=for_evaluation)
    assert "classes without a pixel (2): pole, train" in caplog.text


def test_labels_from_one_with_a_name_too_many_are_noted(register, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register([rows(1, 2), rows(3)], STREET[:4])
    assert "no pixel has the value 0, though all other classes have pixels: road" in caplog.text
    assert "subtract 1" in caplog.text


def test_labels_from_one_and_those_from_zero_get_their_own_remedies(register):
    refused(register, [rows(1, 2, 3)], STREET[:3], "values beyond the 3 classes, 3", "subtract 1")
    with pytest.raises(ValueError, match="NAMES lacks a line") as error:
        register([rows(0, 1, 2, 3)], STREET[:3])
    assert "subtract" not in str(error.value)


def test_files_of_0_and_255_beside_others_are_noted(register, caplog):
    with caplog.at_level(logging.WARNING, "swinv2_backbone"):
        register([rows(0, 1), rows(0, 255), rows(0)], BINARY)
    assert "label images of 0 and 255 beside others of 0 and 1: 1.png" in caplog.text


def test_cityscapes_ids_with_the_names_of_the_benchmark_get_its_remedy(register):
    labels = {"a_gtFine_labelIds.png": rows(0, 7, 33)}
    refused(register, labels, CITYSCAPES, "createTrainIdLabelImgs")


def test_the_shares_of_the_classes_are_logged(register, caplog):
    with caplog.at_level(logging.INFO, "swinv2_backbone"):
        register([rows(0, 0, 0, 1, 1, 255), rows(0)], BINARY)
    assert "2 label images in" in caplog.text
    assert "background 75.00%, crack 16.67%, ignored 8.33%" in caplog.text


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_pixels_are_counted_as_by_numpy(dtype):
    labels = np.random.default_rng(0).integers(0, 200, (50, 70)).astype(dtype)
    values, counts = np.unique(labels, return_counts=True)
    assert pixels_by_value(labels) == dict(zip(values.tolist(), counts.tolist()))
