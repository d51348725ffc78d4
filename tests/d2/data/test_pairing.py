"""Images and label images, paired by the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from swinv2_backbone.d2.data.validation.pairing import paired
from swinv2_backbone.d2.data.validation.report import Report


def write(folder: Path, names: str) -> Path:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def pairs_of(
    tmp_path: Path, images: str, labels: str, classes: int = 5
) -> tuple[dict[str, str], Report]:
    """Pair files of two folders; return the names of the pairs, and the report."""
    folders = write(tmp_path / "images", images), write(tmp_path / "labels", labels)
    report = Report("the files")
    found = paired(*folders, classes, report)
    names = [[str(path.relative_to(f)) for path, f in zip(pair, folders)] for pair in found]
    return dict(names), report


def test_equal_names_need_no_note(tmp_path):
    found, report = pairs_of(tmp_path, "a.jpg sub/b.tif sub/a.png", "a.png sub/b.png sub/a.png")
    assert found == {"a.jpg": "a.png", "sub/a.png": "sub/a.png", "sub/b.tif": "sub/b.png"}
    assert str(report) == "the files: no faults"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.jpg", "a_mask.png"),
        ("a.jpg", "a_Mask.png"),
        ("a.jpg", "a-mask.png"),
        ("a.jpg", "a_masks.png"),
        ("a.jpg", "a_label.png"),
        ("a.jpg", "a_labels.png"),
        ("a.jpg", "a_gt.png"),
        ("a.jpg", "a_seg.png"),
        ("a.jpg", "a_segmentation.png"),
        ("a.jpg", "a.jpg.png"),
        ("a.JPG", "a.JPG.png"),
        ("a_jpg.rf.0f3b.jpg", "a_jpg.rf.0f3b_mask.png"),
        ("855_sat.jpg", "855_mask.png"),
        ("7_image.png", "7_label.png"),
        ("x_img.png", "x_img_mask.png"),
        ("ulm/ulm_7_leftImg8bit.png", "ulm/ulm_7_gtFine_labelIds.png"),
        ("ulm/ulm_7_leftImg8bit.png", "ulm/ulm_7_gtFine_labelTrainIds.png"),
        ("ulm/ulm_7_leftImg8bit.png", "ulm/ulm_7_gtCoarse_labelIds.png"),
    ],
)
def test_labels_are_found_by_the_endings_of_known_schemes(tmp_path, image, label):
    found, report = pairs_of(tmp_path, f"{image} other.png", f"{label} other.png")
    assert found == {image: label, "other.png": "other.png"}
    assert not report.errors
    pair = f"{Path(image).name} with {Path(label).name}"
    assert f"label images found by the ending of their name: {pair}" in str(report)


CITY = "u_leftImg8bit.png"
FINE = ["color", "instanceIds", "instanceTrainIds", "labelIds", "labelTrainIds"]


@pytest.mark.parametrize(
    ("classes", "expected"), [(19, "labelTrainIds"), (34, "labelIds"), (20, None)]
)
def test_the_number_of_classes_chooses_among_the_files_of_cityscapes(tmp_path, classes, expected):
    labels = " ".join(f"u_gtFine_{kind}.png" for kind in FINE)
    found, report = pairs_of(tmp_path, CITY, labels, classes)
    if expected is None:
        both = f"{CITY} (u_gtFine_labelIds.png, u_gtFine_labelTrainIds.png)"
        assert f"images with several label images: {both}" in str(report)
        assert len(report.errors) == 1
    else:
        assert found == {CITY: f"u_gtFine_{expected}.png"} and not report.errors


def test_the_other_files_of_cityscapes_are_no_labels(tmp_path):
    found, report = pairs_of(tmp_path, CITY, "u_gtFine_color.png u_gtFine_labelIds.png", 19)
    assert found == {CITY: "u_gtFine_labelIds.png"} and not report.errors
    other = write(tmp_path / "more", "x")
    found, report = pairs_of(other, CITY, "u_gtFine_color.png u_gtFine_instanceIds.png")
    assert f"images without a label image: {CITY}" in str(report) and not found


def test_what_is_not_clear_is_refused(tmp_path):
    _, report = pairs_of(tmp_path / "1", "a.jpg", "a_mask.png a_label.png")
    assert "a.jpg (a_label.png, a_mask.png)" in str(report)
    _, report = pairs_of(tmp_path / "2", "a_img.jpg a_rgb.jpg", "a_mask.png")
    assert "images without a label image (2): a_img.jpg, a_rgb.jpg" in str(report)
    assert "label images without an image: a_mask.png" in str(report)


def test_an_image_of_the_exact_name_goes_before_one_with_an_ending(tmp_path):
    found, report = pairs_of(tmp_path, "a.jpg a_rgb.jpg", "a_mask.png a_rgb_mask.png")
    assert found == {"a.jpg": "a_mask.png", "a_rgb.jpg": "a_rgb_mask.png"} and not report.errors


def test_files_of_other_subfolders_are_not_paired(tmp_path):
    found, report = pairs_of(tmp_path, "a/x.jpg", "b/x_mask.png")
    assert not found and len(report.errors) == 2


def test_one_folder_may_hold_images_and_their_masks(tmp_path):
    folder = write(tmp_path / "train", "a.jpg a_mask.png b.png b_mask.png _classes.csv")
    report = Report("the files")
    found = paired(folder, folder, 5, report)
    names = [(image.name, label.name) for image, label in found]
    assert names == [("a.jpg", "a_mask.png"), ("b.png", "b_mask.png")] and not report.errors
    folder = write(tmp_path / "plain", "a.jpg b.png")
    with pytest.raises(ValueError, match="must not lie within each other.*_mask"):
        paired(folder, folder, 5, report)
