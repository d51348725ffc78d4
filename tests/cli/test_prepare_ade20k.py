"""ADE20K's labels: prepared as Detectron2 reads them, and checked before a training."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image
from scripts import ROOT

from swinv2_backbone.d2.data.datasets import ade20k
from swinv2_backbone.d2.data.datasets.ade20k import Prepared, check_ade20k, prepare

TOOL = ROOT / "tools" / "prepare_ade20k.py"
SPLITS = ("training", "validation")
SHAPE = (9, 7)


def draw(seed: int, low: int = 0, high: int = 150) -> np.ndarray:
    """Labels between `low` and `high`, with both of them in every image."""
    labels = np.random.default_rng(seed).integers(low, high + 1, SHAPE).astype(np.uint8)
    labels.flat[:2] = low, high
    return labels


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def root(tmp_path) -> Path:
    """An ADE20K of six images: three to train with, three to test with."""
    root = tmp_path / "ADEChallengeData2016"
    for number, split in enumerate(SPLITS):
        for i in range(3):
            write(root / "annotations" / split / f"ADE_{i}.png", draw(10 * number + i))
            write(root / "images" / split / f"ADE_{i}.jpg", np.zeros((*SHAPE, 3), np.uint8))
    return root


@pytest.fixture
def registered(root):
    """Detectron2's own two datasets, moved to the images of `root`."""
    names = {"ade20k_sem_seg_train": "training", "ade20k_sem_seg_val": "validation"}
    before = {name: MetadataCatalog.get(name).as_dict() for name in names}
    for name, split in names.items():
        MetadataCatalog.pop(name)
        MetadataCatalog.get(name).set(
            image_root=str(root / "images" / split),
            sem_seg_root=str(root / "annotations_detectron2" / split),
        )
    yield list(names)
    for name, values in before.items():
        MetadataCatalog.pop(name)
        values.pop("name", None)
        MetadataCatalog.get(name).set(**values)


def run(*args) -> None:
    """The tool, run as a script but in this process."""
    with patch.object(sys, "argv", [str(TOOL), *map(str, args)]):
        runpy.run_path(str(TOOL), run_name="__main__")


def test_classes_move_down_by_one_and_other_becomes_255(root):
    assert prepare(root) == Prepared(made=6, kept=0)
    expected = {0: 255} | {label: label - 1 for label in range(1, 151)}
    for split in SPLITS:
        for source in sorted((root / "annotations" / split).iterdir()):
            made = Image.open(root / "annotations_detectron2" / split / source.name)
            assert made.mode == "L"
            wanted = [[expected[label] for label in row] for row in read(source).tolist()]
            assert np.array(made).tolist() == wanted


def test_only_the_prepared_files_are_new(root):
    before = snapshot(root)
    prepare(root)
    after = snapshot(root)
    assert before.items() <= after.items()
    new = {str(path.relative_to(root)) for path in after.keys() - before.keys()}
    assert new == {f"annotations_detectron2/{s}/ADE_{i}.png" for s in SPLITS for i in range(3)}


def test_the_folder_that_holds_ade20k_will_do(root):
    assert prepare(root.parent).made == 6
    assert (root / "annotations_detectron2" / "training" / "ADE_0.png").is_file()


def test_a_second_run_makes_what_is_missing_and_keeps_the_rest(root):
    prepare(root)
    complete = snapshot(root)
    lost = root / "annotations_detectron2" / "validation" / "ADE_1.png"
    lost.unlink()
    rest = snapshot(root)
    assert prepare(root) == Prepared(made=1, kept=5)
    after = snapshot(root)
    assert rest.items() <= after.items()
    assert after[lost][0] == complete[lost][0]


def test_an_interrupted_run_leaves_whole_files_only_and_is_finished(root, monkeypatch):
    save, calls = Image.Image.save, []

    def stop_in_the_third(image, path, **options):
        save(image, path, **options)
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(Path(path).read_bytes()[:30])
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Image.Image, "save", stop_in_the_third)
        prepare(root, workers=1)
    there = [path for path in (root / "annotations_detectron2").rglob("*") if path.is_file()]
    assert 2 <= len(there) < 6 and all(path.suffix == ".png" for path in there)
    assert all(read(path).shape == SHAPE for path in there)
    assert prepare(root) == Prepared(made=6 - len(there), kept=len(there))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-6])


def spoil_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255  # the first and the last bytes stay a PNG's
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def leave_both_ends(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8] + path.read_bytes()[-12:])


def resize(path: Path) -> None:
    write(path, np.zeros((4, 4), np.uint8))


def put_back_the_source(path: Path) -> None:
    source = path.parents[2] / "annotations" / path.parent.name / path.name
    path.write_bytes(source.read_bytes())


@pytest.mark.parametrize(
    "spoil",
    [truncate, empty, leave_both_ends, resize, spoil_the_middle, put_back_the_source],
)
def test_a_file_that_does_not_fit_is_reported_before_anything_is_written(root, spoil):
    prepare(root)
    spoilt = root / "annotations_detectron2" / "validation" / "ADE_2.png"
    spoil(spoilt)
    (root / "annotations_detectron2" / "training" / "ADE_0.png").unlink()
    before = snapshot(root)
    with pytest.raises(ValueError, match=r"validation/ADE_2.png .*--overwrite"):
        prepare(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("spoil", [truncate, empty, leave_both_ends, resize])
def test_every_file_is_looked_at_though_few_are_compared(root, monkeypatch, spoil):
    prepare(root)
    monkeypatch.setattr(ade20k, "COMPARED", 1)
    spoil(root / "annotations_detectron2" / "training" / "ADE_2.png")
    with pytest.raises(ValueError, match=r"training/ADE_2.png .*--overwrite"):
        prepare(root)


def test_overwrite_makes_every_file_anew(root):
    prepare(root)
    whole = snapshot(root / "annotations_detectron2")
    truncate(root / "annotations_detectron2" / "validation" / "ADE_2.png")
    assert prepare(root, overwrite=True) == Prepared(made=6, kept=0)
    again = snapshot(root / "annotations_detectron2")
    assert {path: data for path, (data, _) in again.items()} == {
        path: data for path, (data, _) in whole.items()
    }


def test_a_link_to_the_sources_is_never_written_through(root):
    before = snapshot(root)
    (root / "annotations_detectron2").symlink_to("annotations")
    with pytest.raises(ValueError, match="remove that link"):
        prepare(root, overwrite=True)
    (root / "annotations_detectron2").unlink()
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full(SHAPE, 151, np.uint8), "label 151, but ADE20K's are 0 to 150"),
        (np.full(SHAPE, 7, np.uint16), "not an 8 bit label image .16 bits"),
        (np.zeros((*SHAPE, 3), np.uint8), "not an 8 bit label image .*colour type 2"),
        (np.zeros(SHAPE, bool), "not an 8 bit label image .1 bits"),
    ],
)
def test_a_source_that_is_no_label_image_is_named(root, image, message):
    write(root / "annotations" / "training" / "ADE_1.png", image)
    with pytest.raises(ValueError, match=f"annotations/training/ADE_1.png .*{message}"):
        prepare(root)
    assert not (root / "annotations_detectron2" / "training" / "ADE_1.png").exists()


def test_a_damaged_source_is_named(root):
    spoil_the_middle(root / "annotations" / "training" / "ADE_1.png")
    with pytest.raises(ValueError, match="training/ADE_1.png cannot be read"):
        prepare(root)


def test_a_palette_only_colours_the_labels(root):
    path = root / "annotations" / "training" / "ADE_1.png"
    labels = Image.fromarray(read(path))
    labels.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    labels.save(path)
    assert Image.open(path).mode == "P"
    prepare(root)
    made = read(root / "annotations_detectron2" / "training" / "ADE_1.png")
    np.testing.assert_array_equal(made, draw(1).astype(int) - 1 + 256 * (draw(1) == 0))


def test_a_missing_folder_says_what_was_looked_for_and_where_ade20k_is_from(root):
    with pytest.raises(ValueError, match=f"{root / 'images' / 'annotations'}.*SceneParsing"):
        prepare(root / "images")
    shutil.rmtree(root / "annotations" / "validation")
    with pytest.raises(ValueError, match=r"annotations/validation; .*ADEChallengeData2016\.zip"):
        prepare(root)
    assert not (root / "annotations_detectron2").exists()


def test_no_workers_are_refused(root):
    with pytest.raises(ValueError, match="workers=0"):
        prepare(root, workers=0)


def test_the_tool_finds_the_datasets_folder_and_counts(root, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root.parent))
    run("--workers", 2)
    printed = capsys.readouterr()
    assert printed.out == "6 label files made, 0 kept\n"
    assert "6/6" in printed.err  # the progress bar


@pytest.mark.parametrize(
    ("args", "counts"),
    [([], "0 label files made, 6 kept\n"), (["--overwrite"], "6 label files made, 0 kept\n")],
)
def test_the_tool_keeps_or_overwrites(root, capsys, args, counts):
    prepare(root)
    run(root, *args)
    assert capsys.readouterr().out == counts


def test_the_tool_ends_with_the_error_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as exit:
        run(tmp_path)
    assert str(exit.value).startswith("ValueError: neither") and "\n" not in str(exit.value)


def test_prepared_datasets_pass_the_check(root, registered):
    prepare(root)
    check_ade20k(registered)


def test_other_datasets_are_not_looked_at():
    check_ade20k(["coco_2017_val", "a_name_that_nobody_registered"])


def test_missing_images_are_reported_with_the_path_and_the_variable(root, registered):
    prepare(root)
    shutil.rmtree(root / "images" / "validation")
    check_ade20k(registered[:1])
    with pytest.raises(ValueError, match=f"{root / 'images/validation'}; .*DETECTRON2_DATASETS"):
        check_ade20k(registered)


@pytest.mark.parametrize("lost", [["ADE_1"], ["ADE_0", "ADE_1", "ADE_2"]])
def test_missing_labels_are_counted_and_the_remedy_named(root, registered, lost):
    prepare(root)
    for name in lost:
        (root / "annotations_detectron2" / "training" / f"{name}.png").unlink()
    message = f"{len(lost)} of 3 images .*{lost[0]}.png; run tools/prepare_ade20k.py {root}"
    with pytest.raises(ValueError, match=message):
        check_ade20k(registered)


def test_no_label_folder_at_all_names_the_remedy(root, registered):
    with pytest.raises(ValueError, match=f"3 of 3 images .*tools/prepare_ade20k.py {root}"):
        check_ade20k(registered)


def copy_unprepared(root: Path, high: int) -> None:
    """Labels 0 to `high`, the same before and after an alleged preparation."""
    for split in SPLITS:
        for i in range(3):
            for folder in ("annotations", "annotations_detectron2"):
                write(root / folder / split / f"ADE_{i}.png", draw(i, high=high))


@pytest.mark.parametrize("high", [150, 40])
def test_labels_that_are_the_downloaded_ones_are_found(root, registered, high):
    copy_unprepared(root, high)
    message = f"not the prepared ones.*tools/prepare_ade20k.py --overwrite {root}"
    with pytest.raises(ValueError, match=message):
        check_ade20k(registered)


def add_labels(root: Path, count: int, high: int) -> None:
    """Images to train with, whose labels lie in the folder for prepared ones."""
    for i in range(count):
        write(root / "images" / "training" / f"ADE_{i}.jpg", np.zeros((*SHAPE, 3), np.uint8))
        write(root / "annotations_detectron2" / "training" / f"ADE_{i}.png", draw(i, high=high))
    shutil.rmtree(root / "annotations")


@pytest.mark.parametrize(("count", "high"), [(30, 40), (3, 150)])
def test_unprepared_labels_are_found_without_their_sources_too(root, registered, count, high):
    add_labels(root, count, high)
    with pytest.raises(ValueError, match="not the prepared ones"):
        check_ade20k(registered[:1])


def test_one_ignored_pixel_among_many_files_shows_that_they_are_prepared(root, registered):
    add_labels(root, 30, high=40)
    labels = draw(29, high=40)
    labels[4, 4] = 255
    write(root / "annotations_detectron2" / "training" / "ADE_0.png", labels)
    check_ade20k(registered[:1])


def test_few_labels_without_ignored_pixels_pass_the_check(root, registered):
    for i in range(3):
        write(root / "annotations" / "training" / f"ADE_{i}.png", draw(i, low=1))
    prepare(root)
    check_ade20k(registered)


def test_a_label_file_that_is_damaged_is_named_by_the_check(root, registered):
    prepare(root)
    truncate(root / "annotations_detectron2" / "training" / "ADE_0.png")
    with pytest.raises(ValueError, match="training/ADE_0.png is no PNG file, or only part of one"):
        check_ade20k(registered)


@pytest.mark.parametrize(("items", "expected"), [(3, [0, 1, 2]), (41, list(range(0, 41, 2)))])
def test_samples_are_spread_from_the_first_file_to_the_last(items, expected):
    assert ade20k._spread(range(items), 21) == expected


@pytest.mark.slow
def test_the_check_of_a_full_dataset_takes_less_than_a_second(root, registered):
    picture = root / "images" / "training" / "ADE_0.jpg"
    labels = root / "annotations_detectron2" / "training"
    write(labels / "ADE_0.png", np.full((512, 683), 255, np.uint8))
    for i in range(20_000):
        os.link(picture, picture.with_name(f"A_{i:05d}.jpg"))
        os.link(labels / "ADE_0.png", labels / f"A_{i:05d}.png")
    for i in (1, 2):
        os.link(labels / "ADE_0.png", labels / f"ADE_{i}.png")
    start = time.process_time()  # of this process alone, however busy the machine is
    check_ade20k(registered[:1])
    assert time.process_time() - start < 1
