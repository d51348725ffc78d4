"""Files and folders of libraries that write to a path: whole under their name, or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swinv2_backbone.checkpoints import durable
from swinv2_backbone.checkpoints.durable import remove_partials, unfinished

KILLED = """
import os, signal, sys
from pathlib import Path
from swinv2_backbone.checkpoints.durable import unfinished

with unfinished(Path(sys.argv[1])) as part:
    if sys.argv[2] == "folder":
        part.mkdir()
        part = part / "weights"
    part.write_text("half of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def written(path: Path, text: str) -> None:
    with unfinished(path) as part:
        part.write_text(text)


def folder_written(path: Path, text: str) -> None:
    with unfinished(path) as part:
        part.mkdir()
        (part / text).write_text(text)


def test_a_file_has_its_name_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "picture.png"
    with unfinished(path) as part:
        part.write_text("new")
        assert part.name == path.name
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["picture.png"]


def test_a_folder_replaces_an_earlier_one_with_all_its_files(tmp_path):
    for text in ("old", "new"):
        folder_written(tmp_path / "package", text)
        assert os.listdir(tmp_path / "package") == [text]
    assert os.listdir(tmp_path) == ["package"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_leaves_nothing_under_the_name_and_the_rest_is_removed(kind, tmp_path):
    path = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], cwd=os.getcwd())
    assert done.returncode == -9
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == 1
    remove_partials(tmp_path)
    assert not os.listdir(tmp_path)


def test_an_error_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "f.txt"
    written(path, "old")
    with pytest.raises(ZeroDivisionError), unfinished(path) as part:
        part.write_text("ne")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_library_that_writes_nothing_is_an_error(tmp_path):
    words = "f.txt cannot be written: nothing was written"
    with pytest.raises(OSError, match=words), unfinished(tmp_path / "f.txt"):
        pass
    assert not os.listdir(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="f.txt cannot be written"):
        written(tmp_path / "absent" / "f.txt", "new")


def test_a_file_never_has_the_companion_of_another(tmp_path, monkeypatch):
    def write(text: str) -> None:
        with unfinished(tmp_path / "a.xml") as part:
            part.write_text(text)
            part.with_suffix(".bin").write_text(text)

    def stopped(partial: Path, path: Path) -> None:
        os.replace(partial, path)
        raise KeyboardInterrupt

    write("old")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(durable, "_put_in_place", stopped)
        write("new")
    assert os.listdir(tmp_path) == ["a.bin"]
    write("new")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"new"}


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    places = {os.stat(tmp_path).st_ino: "outside"}

    def flushed(number: int) -> None:
        events.append(places.get(os.fstat(number).st_ino, "inside"))
        fsync(number)

    def renamed(*paths: Path) -> None:
        events.append("renamed")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    folder_written(tmp_path / "package", "weights")
    assert events == ["inside", "inside", "renamed", "outside"]  # the file and its folder


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "earlier").touch()

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unfinished(path) as part:
        part.mkdir()
        (part / "new").touch()
        monkeypatch.setattr(durable, "_replace", fails)
    assert os.listdir(path) == ["earlier"] and os.listdir(tmp_path) == ["model"]
