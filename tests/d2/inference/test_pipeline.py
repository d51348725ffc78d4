"""Files that are read, predicted and drawn at the same time."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from swinv2_backbone.d2.inference.batch import predict_files
from swinv2_backbone.d2.inference.inputs import plan_outputs
from swinv2_backbone.d2.inference.pipeline import Pipeline
from swinv2_backbone.d2.inference.prediction import Classes
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.tiling.predict import Scaling


class Brightness(torch.nn.Module):
    """A detector whose only box has the mean of the image as its width; it fails on white."""

    def __init__(self):
        super().__init__()
        self.batches: list[int] = []

    def forward(self, inputs):
        self.batches.append(len(inputs))
        if any(one["image"].min() == 255 for one in inputs):
            raise RuntimeError("out of memory")
        return [{"instances": self._found(one)} for one in inputs]

    def _found(self, one):
        found = Instances((one["height"], one["width"]))
        found.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, one["image"].mean().item(), 1.0]]))
        found.scores, found.pred_classes = torch.tensor([0.75]), torch.tensor([0])
        return found


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Brightness(), Classes(["light"]), Scaling(1.0), "BGR")


def gray(value: int, side: int = 8) -> np.ndarray:
    return np.full((8, side, 3), value, np.uint8)


def write(folder: Path, values: dict[str, int]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for number, (name, value) in enumerate(values.items()):
        cv2.imwrite(str(folder / name), gray(value, 8 + number % 3))
    return [folder / name for name in values]


def brightness(record: dict) -> list[float]:
    return [round(one["bbox"][2]) for one in record["detections"]]


@pytest.mark.parametrize("size", [1, 4])
def test_records_are_in_the_order_of_the_files_and_a_file_fails_alone(tmp_path, predictor, size):
    paths = write(tmp_path / "in", {f"{value:03d}.png": value for value in range(1, 24)})
    paths += write(tmp_path / "in", {"white.png": 255, "last.png": 7})
    (tmp_path / "in/002.png").write_bytes(b"junk")
    outputs = plan_outputs(paths, tmp_path / "out", overwrite=False)
    (tmp_path / "out").mkdir()
    outputs[paths[4]] = tmp_path / "out/no_such_folder/005.png"
    records, failed = predict_files(Pipeline(predictor, size), outputs, tmp_path / "out")
    assert [brightness(one) for one in records] == [
        [value] for value in (1, 3, 4, *range(6, 24), 7)
    ]
    assert json.loads((tmp_path / "out/detections.json").read_text()) == records
    assert [line.split(": ")[1] for line in failed] == [
        "DamagedImageError",
        "OSError",
        "RuntimeError",
    ]
    assert [Path(line.split(":")[0]).name for line in failed] == ["002.png", "005.png", "white.png"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        path.name for path in paths
    } - {"002.png", "005.png", "white.png"}
    assert max(predictor.model.batches) == size


def test_images_of_one_size_are_batched_and_none_waits_for_many_others(predictor):
    started = []
    sides = [9, *[8] * 40, 9]
    stream = Pipeline(predictor, 4).run(
        (started.append(side) or side for side in sides),
        lambda side: gray(3, side),
        lambda side, picture, found: picture.shape[1],
    )
    first = next(stream)
    assert first == (9, 9)
    assert len(started) < 40  # the queues are bounded
    assert [outcome for _, outcome in stream] == sides[1:]
    assert predictor.model.batches.count(4) == 10
    assert sum(predictor.model.batches) == len(sides)


def test_results_wait_for_a_slow_writer_in_bounded_number(predictor):
    let_go = threading.Event()
    started = []

    def finish(number, picture, found):
        started.append(number)
        assert let_go.wait(10)
        return number

    stream = Pipeline(predictor, 1, threads=2).run(
        itertools.count(), lambda number: gray(1) if number < 50 else None, finish
    )
    threading.Timer(0.3, let_go.set).start()
    next(stream)
    assert len(predictor.model.batches) < 20
    assert [number for number, _ in stream] == list(range(1, 50))


def test_an_interruption_keeps_what_was_drawn(tmp_path, predictor, monkeypatch):
    paths = write(tmp_path / "in", {f"{value:03d}.png": value for value in range(1, 30)})
    outputs = plan_outputs(paths, tmp_path / "out", overwrite=False)
    (tmp_path / "out").mkdir()
    forward = Brightness._found

    def interrupted(self, one):
        if len(self.batches) == 12:
            raise KeyboardInterrupt
        return forward(self, one)

    monkeypatch.setattr(Brightness, "_found", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_files(Pipeline(predictor, 1), outputs, tmp_path / "out")
    records = json.loads((tmp_path / "out/detections.json").read_text())
    assert [Path(one["file_name"]) for one in records] == paths[:11]
    assert len(list((tmp_path / "out").glob("*.png"))) == 11


def test_the_frames_of_a_video_are_predicted_in_batches_in_their_order(tmp_path, predictor):
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for value in range(10, 120, 10):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    outputs = {tmp_path / "a.avi": tmp_path / "a.mp4"}
    records, failed = predict_files(Pipeline(predictor, 4), outputs, tmp_path)
    assert not failed
    frames = records[0]["frames"]
    assert (records[0]["height"], records[0]["width"]) == (48, 64)
    assert [one["frame"] for one in frames] == list(range(11))
    assert np.allclose([brightness(one)[0] for one in frames], range(10, 120, 10), atol=2)
    assert predictor.model.batches == [4, 4, 3]
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 11
