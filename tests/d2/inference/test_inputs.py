"""Which files prediction takes, what it says of the others, and that one failure stops nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.inference.batch import predict_files
from swinv2_backbone.d2.inference.inputs import find_inputs, plan_outputs
from swinv2_backbone.d2.inference.pipeline import Pipeline
from swinv2_backbone.d2.inference.prediction import Classes, Prediction, to_records
from swinv2_backbone.d2.inference.predictor import Prepared
from swinv2_backbone.images.kinds import described

COLORS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


class Copying:
    """A predictor without a model: it finds nothing, and draws the image itself."""

    device = torch.device("cpu")

    def __init__(self, fails: str = ""):
        self.fails = fails

    def read(self, path: Path) -> np.ndarray:
        if path.name == self.fails:
            raise MemoryError("too large")
        return read_image(path, "BGR")

    def prepare(self, image: np.ndarray) -> Prepared:
        return Prepared(torch.from_numpy(image.copy()), *image.shape[:2])

    def apply(self, images: Sequence[Prepared]) -> list[Prediction]:
        return [Prediction() for _ in images]

    def draw(self, image: np.ndarray, found: Prediction) -> np.ndarray:
        return image

    def records(self, found: Prediction) -> dict:
        return to_records(found, Classes())


@pytest.fixture
def folder(tmp_path):
    """A folder as people have it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.gif", "d.qoi", "e.JPG", "f.avif", "g.jp2", "h.tif"):
        Image.fromarray(COLORS).save(folder / name)
    tiny = ("notes.txt", "list.txt", "x.jxl", "y.dcm", "._a.jpg", "LICENSE")
    for name in tiny:
        (folder / name).write_text("text")
    (folder / "more").mkdir()
    return folder


def test_a_folder_gives_every_readable_kind_and_tells_of_the_rest(folder):
    found = find_inputs([str(folder)])
    names = [path.name for path in found.files]
    assert names == ["a.jpg", "b.png", "c.gif", "d.qoi", "e.JPG", "f.avif", "g.jp2", "h.tif"]
    lines = described(found.passed_over)
    assert len(lines) == 6
    assert lines[0] == "  files of .txt (2): list.txt, notes.txt"
    text = "\n".join(lines)
    assert "files of .jxl, a JPEG XL image: x.jxl -> convert it to PNG" in text
    assert "files of .dcm, a DICOM file: y.dcm -> convert it to TIFF or PNG" in text
    assert "hidden files: ._a.jpg" in text and "files without a suffix: LICENSE" in text
    assert "folders, whose files are not searched: more -> give them too" in text


def test_a_pattern_passes_over_what_is_no_image_and_takes_each_file_once(folder):
    found = find_inputs([str(folder / "*"), str(folder / "a.jpg")])
    assert len(found.files) == 8 and len(found.passed_over) == 6  # `*` leaves out hidden files
    assert find_inputs([str(folder / "?.png")]).passed_over == []


def test_a_folder_without_images_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "x.jxl").write_bytes(b"\xff\x0a")
    with pytest.raises(
        ValueError, match=r"(?s)no image or video there.*x.jxl -> convert it to PNG"
    ):
        find_inputs([str(tmp_path)])


def test_a_file_given_by_name_is_judged_by_its_content(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "photo", format="JPEG")
    assert find_inputs([str(tmp_path / "photo")]).files == [tmp_path / "photo"]
    (tmp_path / "x.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    with pytest.raises(ValueError, match=r"x.jxl' is neither.*a JPEG XL image: convert it to PNG"):
        find_inputs([str(tmp_path / "x.jxl")])


def test_drawings_of_kinds_that_opencv_cannot_write_are_png_files(folder, tmp_path):
    outputs = plan_outputs(find_inputs([str(folder)]).files, tmp_path / "drawn", overwrite=False)
    drawn = [
        "a.jpg",
        "b.png",
        "c.gif.png",
        "d.qoi.png",
        "e.JPG",
        "f.avif.png",
        "g.jp2.png",
        "h.tif",
    ]
    assert [path.name for path in outputs.values()] == drawn
    (tmp_path / "drawn").mkdir()
    results, failed = predict_files(Pipeline(Copying()), outputs, tmp_path / "drawn")
    assert len(results) == 8 and failed == []
    for target in outputs.values():
        assert cv2.imread(str(target)).shape == COLORS.shape


def test_failing_files_stop_nothing(folder, tmp_path):
    """Damaged, of unknown range, of bands, too large for the memory, and a video that is none."""
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    Image.fromarray(COLORS[:, :, 0].astype(np.float32)).save(folder / "float.tif")
    pages = [Image.fromarray(COLORS[:, :, band].copy()) for band in range(3)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    (folder / "clip.mp4").write_bytes(b"no video")
    outputs = plan_outputs(find_inputs([str(folder)]).files, tmp_path, overwrite=False)
    results, failed = predict_files(Pipeline(Copying(fails="b.png")), outputs, tmp_path)
    written = json.loads((tmp_path / "detections.json").read_text())
    assert written == results and len(results) == 7 and len(failed) == 5
    for name in ("b.png", "clip.mp4", "cut.jpg", "float.tif", "pages.tif"):
        assert sum(name in message for message in failed) == 1


def test_an_interruption_keeps_the_results_so_far(folder, tmp_path):
    class Interrupted(Copying):
        def read(self, path: Path) -> np.ndarray:
            if path.name == "c.gif":
                raise KeyboardInterrupt
            return super().read(path)

    outputs = plan_outputs(find_inputs([str(folder)]).files, tmp_path, overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        predict_files(Pipeline(Interrupted()), outputs, tmp_path)
    names = [
        Path(one["file_name"]).name
        for one in json.loads((tmp_path / "detections.json").read_text())
    ]
    assert names == ["a.jpg", "b.png"]
