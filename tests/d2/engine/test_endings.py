"""Errors that end a training are one sentence: what, where, what is safe, what to do."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_training
import torch
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.engine import HookBase
from detectron2.utils import comm
from processes import FORK, start
from small_training import config

from swinv2_backbone.checkpoints import durable as durable_module
from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.d2.engine import hooks, log_files
from swinv2_backbone.d2.engine.endings import (
    describe,
    errors_in_a_sentence,
    saved_in,
    setup_sentence,
)
from swinv2_backbone.d2.engine.lock import FolderLock
from swinv2_backbone.d2.engine.shared_errors import raised_in_all_processes
from swinv2_backbone.d2.engine.signals import ending_by_signals, worker_losses_deferred
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.images.kinds import DamagedImageError


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


@pytest.fixture(autouse=True)
def interrupts():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Fail(HookBase):
    """Raise an error at an iteration."""

    def __init__(self, iteration: int, error: BaseException):
        self.iteration, self.error = iteration, error

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise self.error


def end_of(folder: Path, error: BaseException | None, **more) -> str | int | None:
    """Train with checkpoints at iterations 1 and 3; return the code of the exit."""
    trainer = Trainer(config(folder, 6, 2, **more))
    trainer.resume_or_load(False)
    if error:
        trainer.register_hooks([Fail(3, error)])
    with pytest.raises(SystemExit) as end, errors_in_a_sentence(folder):
        trainer.train()
    return end.value.code


LAST = "The last checkpoint is {}/model_0000001.pth"
RESUMES = LAST + "; --resume continues from it"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "OSError: [Errno 28] No space left on device (in {}). Free space on the disk. "
            + RESUMES,
        ),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x"),
            "OSError: [Errno 30] Read-only file system: '/data/x'. Make the file system writable. "
            + RESUMES,
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.  A worker is "
            "often killed because memory is short: use fewer workers. " + RESUMES,
        ),
        (FloatingPointError("NaN"), "FloatingPointError: NaN. " + LAST),
    ],
)
def test_an_expected_error_is_a_sentence(tmp_path, error, expected, capfd):
    assert end_of(tmp_path, error) == expected.format(*[tmp_path] * 2)
    assert "Traceback" not in "".join(capfd.readouterr())


class Unreadable(torch.utils.data.Dataset):
    """A dataset that fails in a worker."""

    def __init__(self, error: Exception):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DamagedImageError("a.png", "two\nlines: here"), "a.png is damaged, or not an image: two"),
        (SizeMismatchError("Mismatched image shape for a.png"), "Mismatched image shape for a.png"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a.png"),
            "[Errno 2] No such file: 'a.png'",
        ),
    ],
)
def test_an_image_that_fails_in_a_worker_is_a_sentence(error, text, tmp_path):
    loader = torch.utils.data.DataLoader(Unreadable(error), num_workers=1)
    with pytest.raises(SystemExit) as end, errors_in_a_sentence(tmp_path):
        next(iter(loader))
    assert str(end.value).startswith(f"{type(error).__name__}: {text}")
    assert "Traceback" not in str(end.value) and str(end.value).endswith(f"in {tmp_path}")


def test_a_mistake_in_a_worker_stays_an_error(tmp_path):
    loader = torch.utils.data.DataLoader(Unreadable(KeyError("width")), num_workers=1)
    with pytest.raises(KeyError, match="width"), errors_in_a_sentence(tmp_path):
        next(iter(loader))


def test_ctrl_c_that_python_ignores_is_not_told(tmp_path, capfd):
    class Ignored:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    with errors_in_a_sentence(tmp_path):
        Ignored()
    assert capfd.readouterr().err == ""


def test_an_unexpected_error_stays_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), errors_in_a_sentence(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize("code", [None, 0, 3, "ValueError: no", 143])
def test_an_exit_stays_as_it_is(code, tmp_path):
    with pytest.raises(SystemExit) as end, errors_in_a_sentence(tmp_path):
        raise SystemExit(code)
    assert end.value.code == code


def test_ctrl_c_is_a_sentence_with_the_code_of_shells(tmp_path, capsys):
    assert end_of(tmp_path, KeyboardInterrupt()) == 130
    assert f"SIGINT: ended at once. {RESUMES.format(tmp_path)}\n" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL  # for those who call the function


@pytest.mark.parametrize(("code", "ends"), [(130, True), (143, True), (1, False), ("text", False)])
def test_a_command_that_a_signal_ended_exits_without_a_traceback(code, ends):
    with pytest.raises(SystemExit), ending_by_signals():
        raise SystemExit(code)
    assert (signal.getsignal(signal.SIGINT) is signal.SIG_DFL) == ends


@pytest.mark.parametrize("error", [AttributeError("unfinished"), SystemExit("ValueError: no")])
def test_ctrl_c_that_a_library_replaces_by_an_error_is_ctrl_c(error, tmp_path, capsys):
    with pytest.raises(SystemExit) as end, errors_in_a_sentence(tmp_path):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise error from None
    assert end.value.code == 130
    assert "SIGINT: ended at once" in capsys.readouterr().err


def test_a_full_disk_at_a_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    replace = os.replace

    def at_the_second(source, target):
        full() if Path(target).name == "model_0000003.pth" else replace(source, target)

    monkeypatch.setattr(durable_module.os, "replace", at_the_second)
    text = end_of(tmp_path, None)
    assert text.startswith(f"OSError: {tmp_path}/model_0000003.pth cannot be written: [Errno 28]")
    assert text.endswith(f"Free space on the disk. {RESUMES.format(tmp_path)}")


def test_the_log_file_has_the_traceback_that_the_console_has_not(tmp_path):
    record = logging.getLogger("detectron2")
    handler = logging.FileHandler(tmp_path / "log.txt")
    record.addHandler(handler)
    try:
        end_of(tmp_path, OSError("lost"))
    finally:
        record.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log.txt").read_text().count("Traceback") == 1


def test_an_error_with_a_cause_is_logged_once(tmp_path):
    logger, handler = logging.getLogger("detectron2"), logging.FileHandler(tmp_path / "log.txt")
    logger.addHandler(handler)
    error = OSError("a.json cannot be written")
    error.__cause__ = OSError("full")
    try:
        end_of(tmp_path, error)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log.txt").read_text().count("OSError: a.json") == 1


@pytest.mark.parametrize(("free", "warned"), [(10_000, True), (10**12, False)])
def test_a_training_warns_if_its_next_checkpoint_will_not_fit(
    free, warned, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(hooks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    trainer = Trainer(config(tmp_path, 1, 9))
    trainer.resume_or_load(False)
    trainer.train()
    found = re.search(r"a checkpoint takes about (\d+) MiB, but only 0 MiB are free", caplog.text)
    assert bool(found) == warned
    size = (tmp_path / "model_final.pth").stat().st_size / 2**20
    assert not found or abs(int(found[1]) - size) < 0.1 * size + 1


def test_the_log_file_also_has_the_traceback_of_an_evaluation_alone(tmp_path):
    logger, handler = logging.getLogger("detectron2"), logging.FileHandler(tmp_path / "log.txt")
    logger.addHandler(handler)
    try:
        with pytest.raises(SystemExit), errors_in_a_sentence(tmp_path, training=False):
            full()
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log.txt").read_text().count("Traceback") == 1


def test_without_a_checkpoint_the_sentence_says_so(tmp_path):
    assert saved_in(tmp_path) == f"There is no checkpoint in {tmp_path}"


def test_an_error_before_training_mentions_checkpoints_only_if_the_disk_fails(tmp_path):
    assert setup_sentence(FileNotFoundError("no a.json"), tmp_path) == (
        "FileNotFoundError: no a.json"
    )
    with pytest.raises(OSError) as found:
        full()
    assert setup_sentence(found.value, tmp_path).endswith(f"There is no checkpoint in {tmp_path}")


def test_a_lock_on_a_full_disk_is_named(tmp_path, monkeypatch):
    lock = FolderLock(tmp_path)
    monkeypatch.setattr(lock, "_content", full)
    with pytest.raises(OSError) as found:
        lock.acquire()
    text = describe(found.value, tmp_path)
    assert text == (
        f"OSError: {tmp_path}/training.lock cannot be written: [Errno 28] No space left on device. "
        "Free space on the disk"
    )


@pytest.mark.parametrize("module", ["tensorboard.summary.writer", "of_a_user"])
def test_only_the_thread_of_tensorboard_may_fail_in_silence(module, tmp_path, monkeypatch):
    told: list = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    kind = type("Thread", (threading.Thread,), {"__module__": module})
    with errors_in_a_sentence(tmp_path):
        thread = kind(target=full)
        thread.start()
        thread.join()
    assert len(told) == (module == "of_a_user")


def test_an_error_of_all_processes_is_printed_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    error = raised_in_all_processes(OSError("full"))
    for each, code in ((error, 1), (OSError("mine"), "OSError: mine")):
        with pytest.raises(SystemExit) as end, errors_in_a_sentence(tmp_path, training=False):
            raise each
        assert end.value.code == code


# ---- What is written meanwhile


def test_a_worker_that_dies_during_a_save_is_reported_after_it():
    """PyTorch's handler of SIGCHLD raises at any place in the code."""

    def handler(number, frame):
        raise RuntimeError("DataLoader worker (pid 7) is killed")

    before, done = signal.signal(signal.SIGCHLD, handler), []
    try:
        with pytest.raises(RuntimeError, match="is killed"), worker_losses_deferred():
            child = FORK.Process(target=time.sleep, args=(60,))
            child.start()
            child.kill()
            child.join()
            done.append("saved")
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert done == ["saved"]


class Failing:
    """A file in whose write a signal handler raises."""

    def __init__(self, error: BaseException):
        self.error = error

    def write(self, data: bytes) -> int:
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt("a"), RuntimeError("b"), OSError("c")])
def test_an_error_in_the_middle_of_a_save_is_not_replaced_by_one_of_torch(tmp_path, error):
    with pytest.raises(type(error), match=str(error)), durable(tmp_path / "a.pth") as file:
        file.file = Failing(error)
        torch.save({"weight": torch.ones(3)}, file)
    assert os.listdir(tmp_path) == []


def test_handlers_of_the_user_stay_as_they_are(tmp_path):
    logger = logging.getLogger("swinv2_backbone")
    before, handler = list(logger.handlers), logging.FileHandler(tmp_path / "mine.txt")
    logger.addHandler(handler)
    try:
        log_files.open_logs(tmp_path)
        logger.warning("one line")
        assert isinstance(handler.stream, io.TextIOWrapper)
    finally:
        logger.handlers[:] = before
        handler.close()
    assert (tmp_path / "mine.txt").read_text() == "one line\n"


def log_with_little_room(folder: Path) -> None:
    """Log more than the log file may have, as on a full disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log_files.open_logs(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    os.write(1, b"before\n")
    for number in range(100):
        logging.getLogger("swinv2_backbone").info(f"message {number}")


def test_a_log_file_on_a_full_disk_is_told_once(tmp_path):
    reading, writing = os.pipe()
    process = start(_to_pipe, writing, log_with_little_room, tmp_path)
    os.close(writing)
    text = os.fdopen(reading).read()
    process.join()
    assert process.exitcode == 0, text
    assert "Traceback" not in text and "Logging error" not in text
    assert text.count("log.txt cannot be written ([Errno 27] File too large)") == 1
    assert "message 99" in text  # on the console
    assert (tmp_path / "log.txt").stat().st_size == 1000


def _to_pipe(pipe: int, function, *args) -> None:
    os.dup2(pipe, 1)
    os.dup2(pipe, 2)
    function(*args)
