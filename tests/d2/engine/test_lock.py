"""One training for each output folder: locks, their owners, and owners that have ended."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import together

from swinv2_backbone.d2.engine import lock
from swinv2_backbone.d2.engine.lock import FILE, FolderInUseError, FolderLock, locked, require_lock


@pytest.fixture
def owner(tmp_path):
    """Return a process that owns a folder, as far as the lock tells."""
    with subprocess.Popen(["sleep", "600"]) as found:
        values = {"place": lock._place(), "host": "here", "process": found.pid, "beat": 0}
        values |= {"started": lock._start_of(found.pid), "token": "its own"}
        (tmp_path / FILE).write_text(json.dumps(values))
        yield found
        found.kill()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Wait for owners only briefly."""
    monkeypatch.setattr(lock, "SILENCE", 0.5)
    monkeypatch.setattr(lock, "PATIENCE", 0.5)


def content(folder: Path) -> dict:
    return json.loads((folder / FILE).read_text())


def change(folder: Path, **values) -> None:
    (folder / FILE).write_text(json.dumps(content(folder) | values))


def test_a_second_training_is_refused_until_the_first_has_ended(tmp_path):
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / FILE).is_file()
        words = f"run is in use by process {os.getpid()} on .*: choose another OUTPUT_DIR"
        with pytest.raises(FolderInUseError, match=words), locked(tmp_path / "run"):
            pytest.fail("owned twice")
        require_lock(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    with locked(tmp_path / "run"):
        pass


def test_a_running_process_keeps_its_folder_and_a_killed_one_loses_it(owner, tmp_path, caplog):
    with pytest.raises(FolderInUseError, match=f"process {owner.pid} "), locked(tmp_path):
        pytest.fail("owned twice")
    owner.send_signal(signal.SIGSTOP)  # stopped, not ended
    with pytest.raises(FolderInUseError), locked(tmp_path):
        pytest.fail("owned twice")
    owner.kill()
    time.sleep(0.2)  # it is not reaped before the end of the test
    with locked(tmp_path):
        assert content(tmp_path)["process"] == os.getpid()
    assert f"taken over from process {owner.pid}" in caplog.text


def test_a_process_that_ends_soon_is_waited_for(owner, tmp_path):
    ends = threading.Timer(0.2, owner.kill)
    ends.start()
    with locked(tmp_path):
        assert content(tmp_path)["process"] == os.getpid()
    ends.join()


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_an_owner_that_releases_the_lock_soon_is_waited_for(owner, tmp_path, caplog):
    release = threading.Timer(0.2, (tmp_path / FILE).unlink)
    release.start()
    with locked(tmp_path):
        assert content(tmp_path)["process"] == os.getpid()
    release.join()
    assert "taken over" not in caplog.text and owner.poll() is None


def test_a_beat_that_cannot_be_written_leaves_the_lock_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with locked(tmp_path):
        own = FolderLock.held[tmp_path]
        lengths = {len(own._content(beat)) for beat in (0, 9, 10**6)}
        assert lengths == {(tmp_path / FILE).stat().st_size}
        monkeypatch.setattr(Path, "open", full)
        time.sleep(0.1)
        monkeypatch.undo()
        require_lock(tmp_path)


def test_a_lock_that_was_removed_has_a_message_of_its_own(tmp_path):
    with locked(tmp_path):
        (tmp_path / FILE).unlink()
        with pytest.raises(OSError, match="was removed"):
            require_lock(tmp_path)


def test_a_network_that_fails_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 20.0)
    with locked(tmp_path):
        read, failures = lock._read, iter([errno.ESTALE, errno.EIO])

        def fails(path):
            if number := next(failures, None):
                raise OSError(number, os.strerror(number))
            return read(path)

        monkeypatch.setattr(lock, "_read", fails)
        require_lock(tmp_path)
        assert next(failures, None) is None


def test_a_folder_that_is_gone_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 20.0)
    folder, aside = tmp_path / "run", tmp_path / "aside"
    with locked(folder):
        folder.rename(aside)
        returns = threading.Timer(0.3, aside.rename, [folder])
        returns.start()
        require_lock(folder)
        returns.join()


def test_a_process_that_has_the_number_of_an_ended_one_is_another(owner, tmp_path):
    change(tmp_path, started="1")
    with locked(tmp_path):
        assert content(tmp_path)["process"] == os.getpid()


def test_an_owner_on_another_machine_is_known_by_its_beats(owner, tmp_path):
    change(tmp_path, place="another", host="far")
    beats = threading.Timer(0.2, change, [tmp_path], {"beat": 5})
    beats.start()
    with pytest.raises(FolderInUseError, match="on far"), locked(tmp_path):
        pytest.fail("owned twice")
    beats.join()


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_an_owner_on_another_machine_that_is_silent_has_ended(text, owner, tmp_path, caplog):
    change(tmp_path, place="another", host="far")
    if text is not None:  # a lock that was cut
        (tmp_path / FILE).write_text(text)
    with locked(tmp_path):
        require_lock(tmp_path)
    assert "waiting 0 s for a beat" in caplog.text and "taken over" in caplog.text


def test_an_owner_raises_its_counter(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with locked(tmp_path):
        end = time.monotonic() + 5
        while time.monotonic() < end and (tmp_path / FILE).read_text().count(12 * "0"):
            time.sleep(0.01)
        for _ in range(200):  # also while the counter is written
            require_lock(tmp_path)
        assert int(content(tmp_path)["beat"]) > 0


def test_an_owner_that_was_taken_over_writes_no_more_and_leaves_the_lock(tmp_path):
    with locked(tmp_path):
        change(tmp_path, token="another")
        with pytest.raises(
            OSError, match="taken over by another training.*nothing more is written"
        ):
            require_lock(tmp_path)
    assert content(tmp_path)["token"] == "another"


def test_a_forked_process_does_not_release_the_lock(tmp_path):
    with locked(tmp_path):
        child = multiprocessing.get_context("fork").Process(
            target=FolderLock.held[tmp_path].release
        )
        child.start()
        child.join()
        require_lock(tmp_path)


def test_a_lock_that_cannot_be_written_is_not_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(FolderLock, "_content", full)
    with pytest.raises(OSError, match="No space"), locked(tmp_path):
        pytest.fail("owned")
    assert not list(tmp_path.iterdir())


def refusal(folder: Path) -> str:
    lock.PATIENCE = 0.5
    try:
        with locked(folder):
            return ""
    except (FolderInUseError, OSError) as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name, words", [(".", "is in use by"), (f"{FILE}/run", "Not a directory")])
def test_all_processes_of_a_training_are_refused(name, words, owner, tmp_path):
    first, second = together(2, refusal, tmp_path / name, folder=tmp_path / "logs")
    assert words in first and first == second


RACE = """
import sys, time
from pathlib import Path
from swinv2_backbone.d2.engine.lock import FolderInUseError, FolderLock
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
try:
    FolderLock(Path(sys.argv[1])).acquire()
    print("owned", flush=True)
    time.sleep(600)
except FolderInUseError:
    print("refused", flush=True)
"""


@pytest.mark.slow
def test_one_of_several_takes_over_what_an_ended_process_left(owner, tmp_path):
    owner.kill()
    owner.wait()
    starts = [sys.executable, "-c", RACE, tmp_path]
    racers = [subprocess.Popen(starts, stdout=subprocess.PIPE) for _ in range(4)]
    time.sleep(0.1)
    (tmp_path / "go").touch()
    found = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.kill()
        racer.communicate()
    assert sorted(found) == [b"owned", b"refused", b"refused", b"refused"]
