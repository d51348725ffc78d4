"""Folders that cannot be written: a full disk, one that fills up, read-only, or gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reliability.judging import has_traceback, unreadable
from reliability.pairs import impatient
from reliability.processes import Command
from reliability.work import NotRunError, Work, stated

DISK = 60_000_000  # bytes: config, logs and six checkpoints of 8.6 MB
ROOM = (0, 2_000, 12_000, 80_000, 5_000_000, 12_000_000)  # bytes that are left for --resume
LINES = 10  # of a sentence that lists files
FILLER = "filler"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of ``DISK`` bytes.

    Raises:
        NotRunError: this user cannot mount one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "reliability", str(folder)]
    found = subprocess.run(mount, capture_output=True, text=True)
    if found.returncode:
        raise NotRunError(
            f"no disk can be mounted (as root, or in `unshare -r -m`): {found.stderr}"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, room: int = 0) -> None:
    """Fill a disk up to some free bytes."""
    with contextlib.suppress(OSError), (disk / FILLER).open("ab", buffering=0) as file:
        while (free := shutil.disk_usage(disk).free) > room:
            file.write(bytes(min(1 << 20, free - room)))


def disk_full(work: Work) -> str:
    """Resume on a full disk, and fill it up in the middle; then continue with room."""
    kinds = Counter[str]()
    with small_disk(work.folder / "disk") as disk:
        for room in ROOM:
            kinds[_resume_with(work, disk, room)] += 1
        for event in range(3, 54, 3):
            kinds[_fill_in_the_middle(work, disk, event)] += 1
    return stated(work.times, "full disks, resumed bitwise equal with room", kinds)


def _resume_with(work: Work, disk: Path, room: int) -> str:
    name = f"room{room}"
    command = work.train(name, iterations=4)  # a checkpoint after 3, and a final one after 4
    command.wait()
    with _on(disk, work, name) as place:
        fill(disk, room)
        command = work.train(place, "yaml", "--resume")
        return _check_end(work, command, f"{room} bytes left", place, disk)


def _fill_in_the_middle(work: Work, disk: Path, event: int) -> str:
    name = f"event{event}"
    with _on(disk, work, name) as place:
        command = work.train(place)
        while len(command.told) < event and command.wait_for("", 10):
            pass
        while command.running:
            fill(disk)
            command.wait_until(0.02)
        return _check_end(work, command, f"full after {' '.join(command.told[-1:])}", place, disk)


@contextlib.contextmanager
def _on(disk: Path, work: Work, name: str) -> Iterator[str]:
    """Put a training on the disk; yield its name there. It is copied back as evidence."""
    place = f"{disk.name}/{name}"
    if (work.folder / name).exists():
        shutil.copytree(work.folder / name, disk / name)
    lost = len(work.lost)
    try:
        yield place
    finally:
        if len(work.lost) > lost:
            shutil.copytree(disk / name, work.folder / f"{name}_lost")
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_end(work: Work, command: Command, told: str, name: str, disk: Path) -> str:
    """Check the end of a training without room, make room, and resume; returns how it ended."""
    code = command.wait()
    check_sentence(work, command, told)
    (disk / FILLER).unlink(missing_ok=True)
    for fault in unreadable(work.folder / name):
        work.expect(False, f"{told}: {fault}")
    work.finish(name)
    work.times += 1
    return "ended with a sentence" if code else "completed"


def check_sentence(work: Work, command: Command, told: str) -> None:
    """Require that a training ended with one sentence, or completed."""
    code = command.wait()
    command.end()
    work.expect(not command.hung, f"{told}: hangs")
    work.expect(not has_traceback(command.text), f"{told}: a traceback")
    if code:
        sentence = "Error: " in "".join(command.text.splitlines()[-LINES:])
        work.expect(code == 1 and sentence, f"{told}: {code}: {command.last!r}")


# ---- Read-only, and gone


def read_only(work: Work) -> str:
    """Make a disk read-only in the middle of a training, and then writable again."""
    kinds = Counter[str]()
    for number in range(4):
        name, place = f"read_only{number}", work.folder / f"read_only{number}"
        command = work.train(name)
        for _ in range(work.chance.randint(1, 8)):
            command.wait_for("step")
        with _immutable(place):
            code = command.wait()
        check_sentence(work, command, name)
        kinds["ended with a sentence" if code else "completed"] += 1
        work.finish(name)
        work.times += 1
    return stated(work.times, "folders made immutable, resumed bitwise equal", kinds)


@contextlib.contextmanager
def _immutable(folder: Path) -> Iterator[None]:
    """Refuse new, renamed and removed files in a folder, also to root.

    A mounted disk cannot be made read-only while its files are written.
    """
    found = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, text=True)
    if found.returncode:
        raise NotRunError(f"no folder can be made immutable: {found.stderr}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)


def folder_gone(work: Work) -> str:
    """Move and remove the output folder in the middle of a training."""
    for number in range(6):
        name, removed = f"gone{number}", number % 2 == 1
        command = work.train(name, prepare=impatient, workers=number // 2 % 2 * 2)
        for _ in range(work.chance.randint(2, 7)):
            command.wait_for("step")
        os.rename(work.folder / name, work.folder / f"{name}_moved")
        if removed:
            shutil.rmtree(work.folder / f"{name}_moved")
        told = f"{name}, {'removed' if removed else 'moved'}"
        work.expect(command.wait() == 1, f"{told}: ends with {command.code}")
        check_sentence(work, command, told)
        if not removed:
            shutil.rmtree(work.folder / name, ignore_errors=True)
            os.rename(work.folder / f"{name}_moved", work.folder / name)
        work.finish(name)
        work.times += 1
    return stated(work.times, "folders gone (waited for 0.5 s, not 30), then bitwise equal")
