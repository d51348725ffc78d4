"""ADE20K's labels are prepared as Detectron2 reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ade20k_files import SHAPE, SPLITS, draw, read, truncate, write, write_ade20k
from PIL import Image

from swinv2_backbone.d2.data.datasets import ade20k
from swinv2_backbone.d2.data.datasets.ade20k import Prepared, prepare


@pytest.fixture
def root(tmp_path) -> Path:
    return write_ade20k(tmp_path)


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


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
    spoiled = root / "annotations_detectron2" / "validation" / "ADE_2.png"
    spoil(spoiled)
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
        (np.full(SHAPE, 7, np.uint16), "not an 8-bit label image .16 bits"),
        (np.zeros((*SHAPE, 3), np.uint8), "not an 8-bit label image .*color type 2"),
        (np.zeros(SHAPE, bool), "not an 8-bit label image .1 bits"),
    ],
)
def test_a_source_that_is_not_a_label_image_is_named(root, image, message):
    write(root / "annotations" / "training" / "ADE_1.png", image)
    with pytest.raises(ValueError, match=f"annotations/training/ADE_1.png .*{message}"):
        prepare(root)
    assert not (root / "annotations_detectron2" / "training" / "ADE_1.png").exists()


def test_a_damaged_source_is_named(root):
    spoil_the_middle(root / "annotations" / "training" / "ADE_1.png")
    with pytest.raises(ValueError, match="training/ADE_1.png cannot be read"):
        prepare(root)


def test_a_palette_only_colors_the_labels(root):
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
