"""Batches do not depend on workers and resume at any point; broken images are skipped (R14 of
docs/RELIABILITY.md)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import small_training
import torch
from detectron2.data.samplers import TrainingSampler
from detectron2.utils.events import EventStorage
from PIL import Image
from processes import together

from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.seeding import seeded_on_cpu
from swinv2_backbone.d2.engine.parallel import parallel_model
from swinv2_backbone.d2.engine.rng import rng_state, set_rng_state, undisturbed_rng
from swinv2_backbone.d2.engine.step import TrainingStep

COUNT = 11


def records(count: int = COUNT) -> list[dict]:
    """Every third is portrait."""
    return [
        {"file_name": f"{i}.png", "index": i, "width": 60 if i % 3 else 30, "height": 40}
        for i in range(count)
    ]


def augment(record: dict) -> dict:
    """Draws from every generator that an augmentation may use."""
    drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))
    return record | {"drawn": drawn}


def loader(**options) -> TrainLoader:
    options = {"total_batch_size": 2, "seed": 5, "aspect_ratio_grouping": True} | options
    return TrainLoader(records(), augment, **options)


def batches(found: TrainLoader, count: int) -> list[list[tuple]]:
    taken = [[(r["index"], r["drawn"]) for r in batch] for batch in islice(iter(found), count)]
    found.close()
    return taken


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 3 on a machine of 2 cores
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_do_not_depend_on_workers(workers):
    assert batches(loader(num_workers=workers), 20) == batches(loader(), 20)


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_where_they_were(workers, grouping):
    whole = batches(loader(aspect_ratio_grouping=grouping), 20)
    first = loader(num_workers=workers, aspect_ratio_grouping=grouping)
    assert batches(first, 7) == whole[:7]
    second = loader(num_workers=workers, aspect_ratio_grouping=grouping, seed=99)
    second.load_state_dict(first.state_dict())
    assert batches(second, 13) == whole[7:]


def test_what_was_given_before_is_not_read_again():
    read = []
    state = {"seed": 5, "images": 2000}
    found = TrainLoader(records(), lambda r: read.append(r) or r, total_batch_size=2, seed=5)
    found.load_state_dict(state)
    next(iter(found))
    assert len(read) == 2


def test_every_image_comes_once_in_each_round_differently_augmented():
    found = batches(loader(total_batch_size=1), 3 * COUNT)
    flat = [item for batch in found for item in batch]
    for start in range(0, len(flat), COUNT):
        assert sorted(index for index, _ in flat[start : start + COUNT]) == list(range(COUNT))
    assert len({drawn for _, drawn in flat}) == len(flat)


def test_batches_are_of_portrait_or_of_landscape_images():
    found = batches(loader(), 30)
    kinds = {tuple(index % 3 == 0 for index, _ in batch) for batch in found}
    assert kinds == {(True, True), (False, False)}


def test_records_without_sizes_have_those_of_their_files(tmp_path):
    """Detectron2's records of ADE20K have none; the last file is broken."""
    sized = [{**one, "file_name": str(tmp_path / one["file_name"])} for one in records()]
    for one in sized[:-1]:
        Image.new("RGB", (one["width"], one["height"])).save(one["file_name"])
    Path(sized[-1]["file_name"]).write_bytes(b"no image")
    bare = [{"file_name": one["file_name"], "index": one["index"]} for one in sized]
    found = TrainLoader(bare, augment, total_batch_size=2, seed=5)
    assert found.portrait == [*loader().portrait[:-1], False]


def test_another_seed_gives_other_images():
    assert batches(loader(seed=6), 8) != batches(loader(), 8)


def test_the_training_s_own_generators_are_left_alone():
    found = iter(loader())
    torch.manual_seed(0)
    before = rng_state()
    next(found)
    after = rng_state()
    assert after["python"] == before["python"]
    assert torch.equal(after["torch"], before["torch"])
    assert torch.equal(after["numpy"]["key"], before["numpy"]["key"])


def of_two_processes(count: int) -> list[list[tuple]]:
    return batches(loader(total_batch_size=4, aspect_ratio_grouping=False), count)


def test_processes_share_the_images_of_one(tmp_path):
    one = batches(loader(total_batch_size=4, aspect_ratio_grouping=False), 6)
    first, second = together(2, of_two_processes, 6, folder=tmp_path)
    for whole, *parts in zip(one, first, second):
        assert sorted(whole) == sorted(parts[0] + parts[1])


def uneven() -> str:
    with pytest.raises(ValueError, match="2 processes must have equally many of the 3 images"):
        loader(total_batch_size=3)
    return "refused"


def test_processes_must_have_equally_many_images(tmp_path):
    assert together(2, uneven, folder=tmp_path) == ["refused", "refused"]


@pytest.mark.parametrize(
    "sampler", ["TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"]
)
def test_the_samplers_of_a_config_can_go_on(tmp_path, sampler):
    small_training.register(tmp_path / "images")
    cfg = small_training.config(
        tmp_path,
        4,
        2,
        DATALOADER__SAMPLER_TRAIN=sampler,
        DATALOADER__RANDOM_SUBSET_RATIO=0.5,
        DATALOADER__REPEAT_THRESHOLD=0.5,
    )
    np.random.seed(3)
    first = train_loader_from_config(cfg)
    names = [[r["file_name"] for r in batch] for batch in islice(iter(first), 6)]
    second = train_loader_from_config(cfg)
    second.load_state_dict({"seed": first.seed, "images": 3 * first.total_batch_size})
    assert [[r["file_name"] for r in batch] for batch in islice(iter(second), 3)] == names[3:]
    if sampler.startswith("RandomSubset"):
        assert len({name for batch in names for name in batch}) <= 4
    small_training.forget()


def test_there_must_be_images():
    with pytest.raises(ValueError, match="no images to train on"):
        TrainLoader([], augment, total_batch_size=1)


def test_generators_can_be_put_back():
    state = rng_state()
    first = augment({})["drawn"]
    with undisturbed_rng():
        second = augment({})["drawn"]
    assert augment({})["drawn"] == second != first
    set_rng_state(state)
    assert augment({})["drawn"] == first


def test_generators_follow_from_all_of_the_entropy():
    def drawn(*entropy: int) -> tuple:
        with seeded_on_cpu(*entropy):
            return augment({})["drawn"]

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(1, 2), drawn(2, 1), drawn(1, 3), drawn(0, 2)}) == 4


# ---- Broken images


def good_image(path: Path, number: int) -> None:
    """All kinds that can be read: with EXIF turns, CMYK, 16 bit, palette, plain."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    kind = number % 5
    if kind == 0:
        exif = Image.Exif()
        exif[274] = 6
        image.save(path, "JPEG", exif=exif)
    elif kind == 1:
        image.convert("CMYK").save(path, "JPEG")
    elif kind == 2:
        Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(path, "PNG")
    elif kind == 3:
        image.quantize().save(path, "PNG")
    else:
        image.save(path, "PNG")


def break_image(path: Path, number: int) -> None:
    """Cut short, emptied, removed, or filled with noise."""
    kind = number % 4
    if kind == 0:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        path.unlink()
    else:
        path.write_bytes(random.Random(number).randbytes(300))


def images(folder: Path, count: int, broken: int) -> tuple[list[dict], set[str]]:
    """Records of ``count`` images of which so many are broken, and the names of these."""
    found, bad = [], set()
    chosen = set(random.Random(1).sample(range(count), broken))
    for number in range(count):
        path = folder / f"{number}.img"
        good_image(path, number)
        found.append({"file_name": str(path), "width": 32, "height": 24})
        if number in chosen:
            break_image(path, number)
            bad.add(str(path))
    return found, bad


def read(record: dict) -> dict:
    return record | {"image": read_image(record["file_name"], "RGB")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_few_broken_images_are_skipped_and_named(tmp_path, workers, record_figures):
    found, bad = images(tmp_path, count=200, broken=2)  # 1 %
    loader = TrainLoader(found, read, total_batch_size=4, num_workers=workers, max_broken=0.01)
    named, seen = {}, set()
    for batch in islice(iter(loader), 100):  # every image twice
        assert len(batch) == 4
        seen |= {record["file_name"] for record in batch}
        named |= loader.take_broken()
    loader.close()
    assert named.keys() == bad
    assert seen == {record["file_name"] for record in found} - bad
    record_figures("R14", f"{len(named)} of {len(bad)} broken images skipped and named")


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_replaced_by_the_same_ones_for_any_workers(tmp_path, workers):
    found, _ = images(tmp_path, count=50, broken=10)
    names = []
    for number in (0, workers):
        loader = TrainLoader(
            found, read, total_batch_size=2, num_workers=number, max_broken=0.5, seed=1
        )
        names.append([[r["file_name"] for r in batch] for batch in islice(iter(loader), 50)])
        loader.close()
    assert names[0] == names[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_where_all_images_are_broken_they_are_named(tmp_path, workers):
    found, _ = images(tmp_path, count=8, broken=8)
    loader = TrainLoader(found, read, total_batch_size=2, num_workers=workers)
    with pytest.raises(BrokenImagesError, match="(?s)8 of 8 images cannot be read.*0.img"):
        next(iter(loader))


class Weight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return {"loss": (self.w * len(batch)).sum()}


def steps_until_refused(found: list[dict], max_broken: float, workers: int) -> tuple:
    """How many steps are made, the error, and the weight, of this process."""
    torch.manual_seed(0)
    loader = TrainLoader(
        found, read, total_batch_size=4, num_workers=workers, max_broken=max_broken, seed=2
    )
    model = Weight()
    model = parallel_model(model, "none")
    step = TrainingStep(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
    for number in range(100):
        try:
            with EventStorage():
                step.run_step()
        except BrokenImagesError as error:
            loader.close()
            return number, str(error), len(step.broken)
    return 100, "", len(step.broken)


@pytest.mark.parametrize("workers", [0, 2])
def test_where_most_images_are_broken_training_stops_with_the_count(
    tmp_path, workers, record_figures
):
    found, bad = images(tmp_path, count=100, broken=60)
    number, error, count = steps_until_refused(found, 0.05, workers)
    assert number < 10 and count > 5
    assert error.startswith(f"{count} of 100 images cannot be read, 5 may")
    assert any(file in error for file in bad)
    record_figures("R14", f"60 of 100 broken, 5 allowed: stopped at step {number} with {count}")


def test_processes_stop_together_at_broken_images_and_know_the_same(tmp_path):
    found, _ = images(tmp_path, count=100, broken=30)
    first, second = together(2, steps_until_refused, found, 0.1, 0, folder=tmp_path / "logs")
    assert first == second and first[0] > 0


def test_no_image_may_be_broken_if_so_wanted(tmp_path):
    found, bad = images(tmp_path, count=20, broken=1)
    _, error, count = steps_until_refused(found, 0.0, 0)
    assert count == 1 and next(iter(bad)) in error


def test_a_share_of_images_is_none_or_less_than_all():
    with pytest.raises(ValueError, match=r"max_broken must be in \[0, 1\), got 1"):
        loader(max_broken=1)


def test_other_errors_are_not_taken_for_broken_images():
    def mapper(record: dict) -> dict:
        raise KeyError("a mistake of the mapper")

    with pytest.raises(KeyError, match="a mistake of the mapper"):
        next(iter(TrainLoader(records(), mapper, total_batch_size=2, max_broken=0.9)))


# ---- Workers


def test_a_lost_worker_is_an_error_and_not_a_hang():
    def mapper(record: dict) -> dict:
        if torch.utils.data.get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    found = iter(TrainLoader(records(), mapper, total_batch_size=1, num_workers=2))
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="worker.*(exited unexpectedly|killed)"):
        for _ in range(10):
            next(found)
    assert time.monotonic() - began < 60


def test_signals_do_not_reach_workers():
    """Clusters send SIGTERM to all processes of a job."""
    found = TrainLoader(records(), pid_of_worker, total_batch_size=1, num_workers=2)
    running = iter(found)
    workers = {next(running)[0]["pid"] for _ in range(4)}
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
    for _ in range(20):
        next(running)
    found.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def pid_of_worker(record: dict) -> dict:
    return record | {"pid": os.getpid()}


EXITS = """
import sys, torch
from swinv2_backbone.d2.data.loading.loader import TrainLoader

def mapper(record):
    if record["index"] == 7 and sys.argv[1] != "leave":
        raise KeyError("a mistake")
    return record

if sys.argv[1] == "spawn":
    import torch.multiprocessing as mp

def train(*_):
    records = [{"file_name": str(i), "index": i, "width": 2, "height": 2} for i in range(9)]
    for batch in TrainLoader(records, mapper, total_batch_size=1, num_workers=2):
        if sys.argv[1] == "leave":
            held.append(batch)
            sys.exit(3)

def test():
    from torch.utils.data import DataLoader
    from swinv2_backbone.d2.data.loading.workers import undisturbed_by_signals
    held.append(iter(undisturbed_by_signals(DataLoader(range(9), num_workers=2))))
    next(held[0])
    sys.exit(4)

held = []
if __name__ == "__main__":
    if sys.argv[1] == "test":
        test()
    if sys.argv[1] == "spawn":
        mp.start_processes(train, nprocs=1, start_method="spawn")
    train()
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("fail", 1),
        pytest.param("leave", 3, marks=pytest.mark.slow),
        pytest.param("spawn", 1, marks=pytest.mark.slow),
        pytest.param("test", 4, marks=pytest.mark.slow),
    ],
)
def test_a_process_with_workers_exits_after_an_error(how, code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(EXITS)
    done = subprocess.run(
        [sys.executable, str(script), how], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    if how in ("fail", "spawn"):
        assert "a mistake" in done.stderr


@pytest.mark.parametrize("argument", ["make_sampler", "sampler"])
def test_samplers_of_one_s_own_can_be_given(argument):
    sampler = TrainingSampler(COUNT, shuffle=False, seed=0)
    given = sampler if argument == "sampler" else lambda seed: sampler
    found = loader(**{argument: given})
    assert [i for batch in batches(found, 2) for i, _ in batch] == [1, 2, 0, 3]


def test_an_unknown_sampler_is_refused(tmp_path):
    small_training.register(tmp_path / "images")
    cfg = small_training.config(tmp_path, 4, 2, DATALOADER__SAMPLER_TRAIN="TrainSampler")
    with pytest.raises(ValueError, match="SAMPLER_TRAIN 'TrainSampler' is unknown"):
        train_loader_from_config(cfg)
    small_training.forget()
