"""The files of metrics after a kill, a resume and an error of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import small_training
from detectron2.utils.events import EventStorage, JSONWriter
from small_training import config, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from swinv2_backbone.d2.engine import metrics
from swinv2_backbone.d2.engine.metrics import FILE, REPLACED, MetricsFile, TensorBoard, read_lines


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


def log(writer, start: int, end: int, **values: float) -> None:
    with EventStorage(start) as storage:
        for iteration in range(start, end):
            storage.iter = iteration
            storage.put_scalars(**values)
            writer.write()


def iterations(file: Path) -> list[int]:
    return [values["iteration"] for _, values in read_lines(file)]


def test_the_lines_are_those_of_detectron2(tmp_path):
    (tmp_path / "own").mkdir()
    own, other = MetricsFile(tmp_path / "own"), JSONWriter(str(tmp_path / FILE))
    for writer in (own, other):
        log(writer, 3, 8, loss=1.5, lr=0.1)
        writer.close()
    assert (tmp_path / "own" / FILE).read_text() == (tmp_path / FILE).read_text() != ""


def test_a_value_that_comes_after_the_others_of_its_iteration_is_written_too(tmp_path):
    writer = MetricsFile(tmp_path)
    with EventStorage(4) as storage:
        for name in ("loss", "AP"):  # the results of an evaluation at the end of a time limit
            storage.put_scalar(name, 1.0)
            writer.write()
    lines = [values for _, values in read_lines(tmp_path / FILE)]
    assert lines == [{"iteration": 4, "loss": 1.0}, {"iteration": 4, "AP": 1.0}]


def test_a_resumed_run_repeats_no_iteration_and_drops_an_incomplete_line(tmp_path):
    log(MetricsFile(tmp_path), 0, 6, loss=1.0)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"iteration": 6, "lo')
    resumed = MetricsFile(tmp_path)
    resumed.begin(4)
    log(resumed, 4, 8, loss=2.0)
    assert iterations(tmp_path / FILE) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [values["loss"] for _, values in read_lines(tmp_path / FILE)] == [1.0] * 4 + [2.0] * 4
    replaced = read_lines(tmp_path / REPLACED)
    assert [values and values["iteration"] for _, values in replaced] == [4, 5, None]


def test_a_run_that_starts_anew_keeps_the_lines_of_the_earlier_one_apart(tmp_path):
    log(MetricsFile(tmp_path), 0, 3, loss=1.0)
    anew = MetricsFile(tmp_path)
    anew.begin(0)
    log(anew, 0, 2, loss=2.0)
    assert iterations(tmp_path / FILE) == [0, 1]
    assert iterations(tmp_path / REPLACED) == [0, 1, 2]


def test_a_killed_and_resumed_training_has_the_metrics_of_each_iteration_once(tmp_path):
    cfg = config(tmp_path, 7, 3)
    cfg.SOLVER.LOG_PERIOD = 1
    train(cfg, stop_before=5)
    assert iterations(tmp_path / FILE) == [0, 1, 2, 3, 4, 5]  # the last one without a loss
    train(cfg, resume=True)  # from iteration 3
    assert iterations(tmp_path / FILE) == list(range(7))
    assert iterations(tmp_path / REPLACED) == [3, 4, 5]


@pytest.fixture(autouse=True)
def numbers_of_event_files(monkeypatch):
    """TensorBoard sorts files of one second by a number that is not padded."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes ten more bytes, until ``clear`` is called."""
    room, write = [10], os.write

    def limited(file: int, data: bytes) -> int:
        if room and not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: room[0]] if room else data)
        if room:
            room[0] -= written
        return written

    monkeypatch.setattr(metrics.os, "write", limited)
    return room


def test_lines_that_a_full_disk_does_not_take_are_written_later(tmp_path, full_disk):
    writer = MetricsFile(tmp_path)
    with EventStorage(0) as storage:
        storage.put_scalar("loss", 1.0)
        with pytest.raises(OSError, match="No space left on device.*metrics.json"):
            writer.write()
        assert (tmp_path / FILE).read_text() == ""  # not a part of a line
        full_disk.clear()
        storage.iter = 1
        storage.put_scalar("loss", 1.0)
        writer.write()
    assert iterations(tmp_path / FILE) == [0, 1]


def test_a_training_goes_on_when_its_metrics_cannot_be_written(tmp_path, full_disk, caplog):
    cfg = config(tmp_path, 4, 100)
    cfg.SOLVER.LOG_PERIOD = 1
    assert len(train(cfg)) == 4
    assert (tmp_path / "model_final.pth").is_file()
    (line,) = [line for line in caplog.text.splitlines() if "cannot write metrics" in line]
    assert "MetricsFile cannot write metrics, and tries again later: [Errno 28]" in line


def test_tensorboard_shows_each_iteration_once(tmp_path):
    for start, end in ((0, 6), (4, 8)):
        writer = TensorBoard(tmp_path)
        writer.begin(start)
        log(writer, start, end, loss=float(start))
        writer.close()
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [
        *((step, 0.0) for step in range(4)),
        *((step, 4.0) for step in range(4, 8)),
    ]


def test_tensorboard_starts_a_new_file_after_an_error(tmp_path, monkeypatch):
    writer = TensorBoard(tmp_path)
    with EventStorage(0) as storage:
        for iteration in range(6):
            storage.iter = iteration
            storage.put_scalar("loss", 1.0)
            if iteration != 3:
                writer.write()
                continue
            monkeypatch.setattr(writer._writer, "flush", lambda: os.write(-1, b"1"))
            with pytest.raises(OSError, match="Bad file"):
                writer.write()
    writer.close()
    assert len(list(tmp_path.glob("events*"))) == 2
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.step for event in shown if event.step != 3] == [0, 1, 2, 4, 5]


def test_lines_that_cannot_be_moved_are_moved_later(tmp_path, full_disk):
    room = list(full_disk)
    full_disk.clear()
    log(MetricsFile(tmp_path), 0, 4, loss=1.0)
    full_disk += room
    resumed = MetricsFile(tmp_path)
    with pytest.raises(OSError, match="No space"):
        resumed.begin(2)
    full_disk.clear()
    log(resumed, 2, 5, loss=1.0)
    assert iterations(tmp_path / FILE) == [0, 1, 2, 3, 4]
    assert iterations(tmp_path / REPLACED) == [2, 3]


def test_an_evaluation_that_is_repeated_is_written_once(tmp_path):
    log(MetricsFile(tmp_path), 3, 5, AP=1.0)
    resumed = MetricsFile(tmp_path)
    resumed.begin(5)
    log(resumed, 4, 6, AP=1.0)
    assert iterations(tmp_path / FILE) == [3, 4, 5]
