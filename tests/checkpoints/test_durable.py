"""Files exist whole or not at all (R1, R4, R5, R6 of docs/RELIABILITY.md)."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import kill_after, start
from torch import Tensor

from swinv2_backbone import SwinV2
from swinv2_backbone.checkpoints import durable as durable_module
from swinv2_backbone.checkpoints.durable import durable, remove_partials, write_text
from swinv2_backbone.checkpoints.files import read_file, write_file
from swinv2_backbone.d2.engine.checkpoint import Checkpointer


def model(value: float = 0.0) -> SwinV2:
    """Build a model with equal weights, so that a mixture of two files would be visible."""
    found = SwinV2(embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.fill_(value)
    return found


def value_of(found: SwinV2) -> float:
    values = {p.min().item() for p in found.parameters()}
    values |= {p.max().item() for p in found.parameters()}
    (value,) = values
    return value


class Progress:
    """The state of a training beside the weights."""

    def __init__(self, iteration: int = 0):
        self.iteration = iteration

    def state_dict(self) -> dict:
        return {"iteration": self.iteration, "optimizer": {"state": {}}}

    def load_state_dict(self, state: dict) -> None:
        self.iteration = state["iteration"]


class Training(Checkpointer):
    """A checkpointer that first removes partial files, as a training does."""

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        remove_partials(Path(self.save_dir))
        return super().resume_or_load(path, resume=resume)


def checkpointer(folder: Path, value: float = 0.0) -> Checkpointer:
    return Training(model(value), str(folder), trainer=Progress(int(value)))


def resumed(folder: Path) -> float:
    """Return the value that a new process resumes with."""
    found = checkpointer(folder, -1.0)
    found.resume_or_load("", resume=True)
    if not found.resumed:
        return -1.0
    assert value_of(found.model) == found.checkpointables["trainer"].iteration
    return value_of(found.model)


# ---- R1: kill -9 while a checkpoint is written


def save_on_and_on(folder: Path, first: int, same_name: bool, done: int) -> None:
    """Save first, first + 1, ... and write each completed number to the pipe ``done``."""
    kept: list[Path] = []
    for value in range(first, first + 1000):
        name = "model_final" if same_name else f"model_{value:07d}"
        checkpointer(folder, float(value)).save(name)
        os.write(done, f"{value}\n".encode())
        kept.append(folder / f"{name}.pth")
        if not same_name and len(kept) > 2:
            kept.pop(0).unlink()


def survive_kills(folder: Path, kills: int, same_name: bool) -> None:
    """Kill, resume, and compare with the last completed number, repeatedly."""
    folder.mkdir()
    rng = random.Random(0)
    began = time.monotonic()
    checkpointer(folder, 0.0).save("model_final")
    takes = time.monotonic() - began
    saved = 0
    for _ in range(kills):
        reading, writing = os.pipe()
        process = start(save_on_and_on, folder, saved + 1, same_name, writing)
        os.close(writing)
        assert kill_after(process, rng.uniform(0, 6 * takes))
        with os.fdopen(reading) as told:
            completed = [int(line) for line in told.read().split()]
        last = max(completed, default=saved)
        found = resumed(folder)
        assert last <= found <= last + 1, f"{last} was saved, {found} resumed"
        saved = int(found)
    assert not list(folder.glob("*.partial")), "partial files are removed"


@pytest.mark.parametrize(
    "same_name",
    [pytest.param(True, marks=pytest.mark.slow), False],
    ids=["same_name", "new_names"],
)
@pytest.mark.heavy
def test_a_kill_while_saving_loses_nothing_that_was_saved(tmp_path, same_name):
    survive_kills(tmp_path / "run", kills=8, same_name=same_name)


@pytest.mark.reliability
@pytest.mark.parametrize("same_name", [True, False], ids=["same_name", "new_names"])
def test_a_kill_while_saving_loses_nothing_200_times(tmp_path, same_name, record_figures):
    survive_kills(tmp_path / "run", kills=200, same_name=same_name)
    record_figures("R1", f"200 of 200 kills resumed, {'one name' if same_name else 'new names'}")


def test_a_file_is_renamed_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    path, events = tmp_path / "f.pth", []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, o=original: (events.append(n), o(*a))[1])
    original = durable_module.digest_on_disk
    monkeypatch.setattr(
        durable_module, "digest_on_disk", lambda p: (events.append("read"), original(p))[1]
    )
    write_text(path, "new")
    assert events == ["fsync", "read", "replace", "fsync"]
    assert path.read_text() == "new"


def test_a_disk_that_does_not_hold_what_was_written_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "f.pth"
    write_text(path, "old")
    monkeypatch.setattr(durable_module, "digest_on_disk", lambda _: "another")
    with pytest.raises(OSError, match="f.pth cannot be written: the file on disk differs"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.pth"]


def refuse(number: int, *_) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES])
def test_a_file_that_is_open_elsewhere_is_replaced_when_it_is_closed(tmp_path, number, monkeypatch):
    path, refused, replace = tmp_path / "f.txt", [], os.replace

    def busy(*names) -> None:
        if len(refused) < 3:
            refused.append(names)
            refuse(number)
        replace(*names)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(durable_module, "OPEN_ELSEWHERE", 0.5)
    write_text(path, "old")
    assert path.read_text() == "old" and len(refused) == 3
    monkeypatch.setattr(os, "replace", partial(refuse, number))
    with pytest.raises(OSError, match="f.txt cannot be written"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_an_error_while_writing_changes_nothing(tmp_path):
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), durable(path) as file:
        file.write(b"ne")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_only_partial_files_of_this_package_are_removed(tmp_path):
    (tmp_path / "model_final.pth.123.partial").write_text("")
    (tmp_path / "notes.partial").write_text("mine")
    remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["notes.partial"]


# ---- R4: a file cannot be read


@pytest.fixture
def run(tmp_path) -> Path:
    """Make a folder with the checkpoints 1 and 2."""
    for value in (1, 2):
        checkpointer(tmp_path, float(value)).save(f"model_{value:07d}")
    return tmp_path


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_file_cut_short_is_refused_by_name_and_the_one_before_taken(run, percent, caplog):
    cut(run / "model_0000002.pth", percent / 100)
    assert resumed(run) == 1
    assert "model_0000002.pth" in caplog.text
    assert f"previous checkpoint: {run / 'model_0000001.pth'}" in caplog.text


@pytest.mark.reliability
def test_a_file_cut_at_every_hundredth_is_refused(run, record_figures):
    whole = (run / "model_0000002.pth").read_bytes()
    for percent in range(100):
        (run / "model_0000002.pth").write_bytes(whole[: len(whole) * percent // 100])
        assert resumed(run) == 1
    record_figures("R4", "100 of 100 lengths refused, the checkpoint before taken")


@pytest.mark.parametrize("tag", ["", "model_0000009.pth", "\0\xff", "../model_0000001.pth"])
def test_with_an_invalid_tag_the_newest_checkpoint_is_taken(run, tag, caplog):
    (run / "last_checkpoint").write_bytes(tag.encode("latin1"))
    assert resumed(run) == 2
    assert "last_checkpoint" in caplog.text or "model_0000009.pth" in caplog.text


def test_without_a_tag_the_newest_checkpoint_is_taken(run):
    (run / "last_checkpoint").unlink()
    assert resumed(run) == 2


def test_no_training_starts_anew_where_all_checkpoints_are_damaged(run):
    for path in run.glob("*.pth"):
        cut(path, 0.5)
    with pytest.raises(ValueError, match="(?s)none of the checkpoints can .*0000002.*0000001"):
        resumed(run)


def test_nothing_to_resume_is_reported(tmp_path, caplog):
    assert resumed(tmp_path) == -1
    assert f"Nothing to resume in {str(tmp_path)!r}: starting from random weights" in caplog.text


def test_a_tag_outside_the_folder_is_not_followed(run, tmp_path):
    (run / "inside").mkdir()
    (run / "inside" / "last_checkpoint").write_text("../model_0000001.pth")
    assert resumed(run / "inside") == -1


# ---- R5: one bit is wrong


def silent_loads(folder: Path, flips: int) -> tuple[int, int]:
    """Return (refused, flips), and check that the other flips load the same weights."""
    path = folder / "flipped.pth"
    write_file(path, {"model": model(1.0).state_dict()}, {})
    whole, refused = path.read_bytes(), 0
    expected = read_file(path).value["model"]
    rng = random.Random(0)
    for _ in range(flips):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = read_file(path).value["model"]
        except (ValueError, OSError):
            refused += 1
            continue
        assert same(found, expected), "other weights were loaded silently"
    return refused, flips


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_no_flipped_bit_changes_weights_silently(tmp_path):
    refused, flips = silent_loads(tmp_path, 100)
    assert refused > flips * 0.9


@pytest.mark.reliability
def test_none_of_2000_flipped_bits_changes_weights_silently(tmp_path, record_figures):
    refused, flips = silent_loads(tmp_path, 2000)
    record_figures("R5", f"{refused} of {flips} flips refused, the rest load the same weights")


# ---- R6: the disk is full, the folder read-only


def save_with_little_room(folder: Path, room: int) -> None:
    """Limit the file size, as a full disk would; the system's error is "File too large"."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        checkpointer(folder, 3.0).save("model_0000002")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)  # for the log


def save_as_nobody(folder: Path) -> None:
    if os.getuid() == 0:  # file modes do not apply to root
        os.setuid(65534)
    checkpointer(folder, 3.0).save("model_0000002")


@pytest.mark.parametrize("room", [0, 1000, 100_000, 1_000_000])
def test_a_full_disk_leaves_the_old_checkpoint(run, room, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log.txt"
    process = start(save_with_little_room, run, room, log=log)
    process.join()
    assert process.exitcode == 1
    assert "model_0000002.pth cannot be written" in log.read_text()
    assert "the earlier checkpoints are unchanged" in log.read_text()
    assert resumed(run) == 2
    assert not list(run.glob("*.partial"))


def test_a_read_only_folder_gives_its_name(run, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log.txt"
    os.chmod(log.parent, 0o777)
    for path in [*run.parents][:-1]:
        os.chmod(path, 0o755)
    os.chmod(run, 0o555)
    process = start(save_as_nobody, run, log=log)
    process.join()
    os.chmod(run, 0o755)
    assert process.exitcode == 1
    assert "cannot be written" in log.read_text() and str(run) in log.read_text()
    assert resumed(run) == 2
