"""A large run gives every image once: whatever process is killed, late, or started twice."""

from __future__ import annotations

import json
import random

import numpy as np
import processes
import pytest
import torch
from PIL import Image
from shard_runs import Brightness, begin, predict, require_exactly_once, results
from small_predictor import write_images

from swinv2_backbone.checkpoints import durable
from swinv2_backbone.d2.inference.scale import shards, worker
from swinv2_backbone.d2.inference.scale.run_record import tidy
from swinv2_backbone.d2.inference.scale.sources import Source
from swinv2_backbone.d2.inference.scale.worker import Worker, shards_for


@pytest.fixture
def sources(tmp_path):
    return [Source(str(path)) for path in write_images(tmp_path / "images", 40, (4, 5))]


def names(sources):
    return [source.name for source in sources]


def test_results_are_those_of_each_image_in_order(tmp_path, sources):
    run = begin(tmp_path / "out", sources)
    finished = predict(run)
    found = results(run)
    require_exactly_once(found, names(sources))
    for one in found:
        mean = np.asarray(Image.open(one["file_name"])).mean()
        assert (one["height"], one["width"]) == (4, 5)
        assert one["detections"][0]["bbox"] == [0, 0, pytest.approx(mean, rel=1e-6), 1]
    assert finished.steps.batches == [3, 3, 1] * 5 + [3, 2]  # no chunk crosses two shards


def test_processes_that_end_early_take_the_shards_of_the_others(tmp_path, sources):
    """Process 1 of 3 never starts; the others still finish the run."""
    run = begin(tmp_path / "out", sources)
    assert list(shards_for(run, 2, 3))[:2] == [2, 5]
    predict(run, 0, 3)
    require_exactly_once(results(run), names(sources))
    assert list(shards_for(run, 2, 3)) == []


def test_a_shard_that_another_process_finishes_is_dropped(tmp_path, sources):
    run = begin(tmp_path / "out", sources)

    class Overtaken(Brightness):
        def predict(self, images):
            if not self.batches:
                predict(run)
            return super().predict(images)

    steps = Overtaken()
    Worker(run, steps).work(shards_for(run, 0, 1))
    require_exactly_once(results(run), names(sources))
    assert steps.batches == [3]


@pytest.mark.parametrize("crash", ["durable.os.fsync", "durable._put_in_place", "shards.durable"])
def test_a_crash_while_a_shard_is_written_leaves_it_missing(tmp_path, sources, monkeypatch, crash):
    """Before, between and after the writing of the file; then the run continues."""

    class CrashError(BaseException):
        """What nothing catches, as of a killed process."""

    module = {"durable": durable, "shards": shards}[crash.partition(".")[0]]
    run = begin(tmp_path / "out", sources)
    write, count = shards.write_shard, []

    def crashing(*args):
        raise CrashError

    def write_shard(*args):
        count.append(1)
        if len(count) == 3:
            target = module.os if ".os." in crash else module
            monkeypatch.setattr(target, crash.rpartition(".")[2], crashing)
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_shard", write_shard)
        with pytest.raises(CrashError):
            predict(run)
    monkeypatch.undo()
    assert len(run.missing()) == 4
    predict(run)
    tidy(run)
    require_exactly_once(results(run), names(sources))


def test_kills_of_processes_lose_and_repeat_nothing(tmp_path):
    """Two processes, both killed five times at random moments, then a pair to the end."""
    sources = [Source(str(path)) for path in write_images(tmp_path / "images", 200, (4, 5))]
    whole = begin(tmp_path / "whole", sources)
    predict(whole)
    run = begin(tmp_path / "out", sources)
    chance = random.Random(0)
    for _ in range(5):
        started = [processes.start(predict, run, rank, 2, 0.01) for rank in range(2)]
        for process in started:
            processes.kill_after(process, chance.uniform(0.05, 0.19))
    assert run.missing()
    started = [processes.start(predict, run, rank, 2) for rank in range(2)]
    for process in started:
        process.join(30)
        assert process.exitcode == 0
    tidy(run)
    assert results(run) == results(whole)


def test_two_runs_of_all_images_at_once_give_one_result(tmp_path, sources):
    run = begin(tmp_path / "out", sources)
    started = [processes.start(predict, run, 0, 1, 0.002) for _ in range(3)]
    for process in started:
        process.join(30)
        assert process.exitcode == 0
    require_exactly_once(results(run), names(sources))


def test_images_that_fail_are_recorded_and_stop_nothing(tmp_path, sources):
    """Damaged, missing, too large for the memory: each is named, and the others are predicted."""
    damaged, large = sources[3], sources[10]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(large.name)
    with open(damaged.name, "r+b") as file:
        file.truncate(60)
    run = begin(tmp_path / "out", [*sources, Source(str(tmp_path / "gone.png"))])

    class Small(Brightness):
        def predict(self, images):
            if any(len(image) == 9 for image in images):
                raise torch.OutOfMemoryError("9 GB")
            return super().predict(images)

    finished = Worker(run, Small())
    finished.work(shards_for(run, 0, 1))
    failed = {one["image_id"]: one["error"] for one in results(run) if "error" in one}
    assert list(failed) == [3, 10, 40]
    assert failed[3].startswith("DamagedImageError") and failed[10] == "OutOfMemoryError: 9 GB"
    assert failed[40].startswith("FileNotFoundError") and "gone.png" in failed[40]
    assert len(finished.failed) == 3 and f"{large.name}: OutOfMemoryError" in finished.failed[1]


def test_an_error_of_the_device_ends_the_process_instead_of_failing_every_image(tmp_path, sources):
    run = begin(tmp_path / "out", sources)

    class Broken(Brightness):
        def predict(self, images):
            raise RuntimeError("the device is lost")

    with pytest.raises(RuntimeError, match="the device is lost"):
        Worker(run, Broken()).work(shards_for(run, 0, 1))
    assert len(run.missing()) == run.shards


def test_a_full_disk_ends_the_process(tmp_path, sources, monkeypatch):
    run = begin(tmp_path / "out", sources)
    monkeypatch.setattr(durable.os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "")))
    with pytest.raises(OSError, match="cannot be written"):
        predict(run)


def test_parquet_holds_the_same_records(tmp_path, sources):
    pytest.importorskip("pyarrow")
    both = [begin(tmp_path / kind, sources, suffix=kind) for kind in ("jsonl", "parquet")]
    for run in both:
        predict(run)
    assert results(both[0]) == results(both[1])
    assert json.dumps(results(both[1]))
